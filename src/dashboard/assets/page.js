// The keys of the pages, the state of the connection, and times that are counted down. The pages work without this script.
(() => {
    'use strict';

    const isTyping = (element) => element.matches('input, textarea, select');

    document.addEventListener('keydown', (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const filter = document.getElementById('q');
        const typing = isTyping(event.target);
        if (event.key === '/' && filter && !typing) {
            filter.focus();
            filter.select();
            event.preventDefault();
        } else if (event.key === 'Escape' && typing) {
            event.target.blur();
        } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
            const links = [...document.querySelectorAll('a.open')];
            if (!links.length || (typing && event.target !== filter)) return;
            const next = links.indexOf(document.activeElement) + (event.key === 'ArrowDown' ? 1 : -1);
            if (next < 0 && filter) filter.focus();
            else links[Math.min(Math.max(next, 0), links.length - 1)].focus();
            event.preventDefault();
        }
    });

    // The server renders the ages anew from time to time; a time that is waited for counts down each second.
    const words = (seconds) => {
        if (seconds < 120) return `${seconds}s`;
        if (seconds < 7200) return `${Math.floor(seconds / 60)}m${seconds < 600 ? `${seconds % 60}s` : ''}`;
        return `${Math.floor(seconds / 3600)}h${Math.floor(seconds / 60) % 60}m`;
    };
    setInterval(() => {
        for (const time of document.querySelectorAll('time[data-until]')) {
            const seconds = Math.round((Date.parse(time.dateTime) - Date.now()) / 1000);
            if (seconds >= 0) time.textContent = words(seconds);
        }
    }, 1000);

    const connection = (text) => {
        const element = document.getElementById('connection');
        if (element && element.textContent !== text) {
            element.textContent = text;
            element.className = text === 'live' ? 'live' : 'broken';
        }
    };
    document.addEventListener('htmx:sse:after:connection', () => connection('live'));
    document.addEventListener('htmx:sse:error', () => connection('reconnecting'));
    // The server cannot follow changes for this page now, or the first request failed: the page is loaded anew later.
    for (const failed of ['htmx:error', 'htmx:response:error']) {
        document.addEventListener(failed, () => {
            connection('reconnecting');
            setTimeout(() => location.reload(), 15000);
        });
    }
    document.addEventListener('stale', () => connection('not current: the API server does not answer'));
    document.addEventListener('current', () => connection('live'));
    document.addEventListener('busy', () => connection('not live: too many open pages'));
    document.addEventListener('login', () => location.reload());
})();
