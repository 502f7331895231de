// Returns the offences of the page that is shown: what is wider than the window, text that is hard to read, and wrong structure.
const offences = [];
const root = document.documentElement;
const name = (element) => `${element.tagName.toLowerCase()}${element.id ? '#' + element.id : ''}.${element.getAttribute('class') || ''}`
    + ` "${(element.textContent || '').trim().slice(0, 40)}"`;
const isShown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });

// A person who reads does not move the page sideways.
if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.body.querySelectorAll('*')].filter((it) => it.getBoundingClientRect().right > root.clientWidth + 1);
    offences.push(`${root.scrollWidth} px wide in ${root.clientWidth}: ${wide.slice(-3).map(name).join(', ')}`);
}

// Only a word that is longer than a line of a phone may be broken.
const range = document.createRange();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const element = text.parentElement;
    if (!isShown(element) || element.ownerSVGElement || element.closest('pre, .hidden, .skip')) continue;
    for (const { 0: word, index } of text.data.matchAll(/[\p{L}\p{N}_.,:%]+/gu)) {
        range.setStart(text, index);
        range.setEnd(text, index + word.length);
        const lines = new Set([...range.getClientRects()].map((it) => Math.round(it.top)));
        if (word.length <= 24 && lines.size > 1) offences.push(`"${word}" is broken in ${name(element)}`);
    }
}

// The texts of a chart are large enough, stay in the window, and do not cover each other.
const touches = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
for (const chart of document.querySelectorAll('svg.chart')) {
    const labels = [...chart.querySelectorAll('text')].filter(isShown).map((it) => [it, it.getBoundingClientRect()]);
    if (!labels.length) offences.push('a chart without texts');
    for (const [label, box] of labels) {
        const size = parseFloat(getComputedStyle(label).fontSize) * label.getScreenCTM().a;
        if (size < 11) offences.push(`a text of ${size.toFixed(1)} px in a chart: ${name(label)}`);
        if (box.left < 0 || box.right > root.clientWidth) offences.push(`out of the window: ${name(label)}`);
        const covered = labels.find(([other, place]) => other !== label && touches(place, box));
        if (covered) offences.push(`${name(label)} covers ${name(covered[0])}`);
    }
}

// The contrast is that of WCAG 2. The browser converts each color.
const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
const color = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
};
const over = (above, below) => [0, 1, 2].map((i) => (above[i] * above[3] + below[i] * (255 - above[3])) / 255).concat(255);
const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
    const c = rgb[i] / 255;
    return sum + part * (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
}, 0);
const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
};
const background = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(color(getComputedStyle(at).backgroundColor));
    const canvasColor = color('Canvas');
    return layers.reverse().reduce((below, above) => over(above, below), canvasColor);
};
const backgrounds = (element) => {
    const behind = background(element);
    const bands = element.ownerSVGElement ? [...element.ownerSVGElement.querySelectorAll('rect')] : [];
    const box = element.getBoundingClientRect();
    const fills = bands.filter((it) => touches(it.getBoundingClientRect(), box)).map((it) => getComputedStyle(it).fill);
    return [behind, ...fills.filter((it) => it !== 'none').map((it) => over(color(it), behind))];
};
const check = (element, foreground, what) => {
    const worst = Math.min(...backgrounds(element).map((back) => contrast(over(color(foreground), back), back)));
    if (worst < 4.5) offences.push(`contrast ${worst.toFixed(2)} of ${what} ${name(element)}`);
};
for (const element of document.querySelectorAll('body, body *')) {
    if (!isShown(element)) continue;
    const style = getComputedStyle(element);
    const hasText = [...element.childNodes].some((it) => it.nodeType === 3 && it.textContent.trim());
    if (hasText) check(element, element.ownerSVGElement ? style.fill : style.color, 'text');
    if (element.placeholder) check(element, getComputedStyle(element, '::placeholder').color, 'the placeholder');
    for (const pseudo of ['::before', '::after']) {
        const { content, color: foreground } = getComputedStyle(element, pseudo);
        if (content !== 'none' && content !== 'normal' && content !== '""') check(element, foreground, pseudo);
    }
}

// The structure by which a screen reader moves.
const count = (selector) => document.querySelectorAll(selector).length;
if (!root.lang) offences.push('the page has no language');
if (!document.title.trim()) offences.push('the page has no title');
if (count('main') !== 1) offences.push(`${count('main')} elements main`);
if (count('h1') !== 1) offences.push(`${count('h1')} elements h1`);
let level = 0;
for (const heading of document.querySelectorAll('h1, h2, h3, h4, h5, h6')) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) offences.push(`h${next} follows h${level}: ${name(heading)}`);
    level = next;
}
const ids = [...document.querySelectorAll('[id]')].map((it) => it.id);
for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) offences.push(`two elements with the id ${id}`);
for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
    if (!field.labels.length && !field.ariaLabel) offences.push(`no label: ${name(field)}`);
}
for (const attribute of ['aria-labelledby', 'aria-describedby', 'for']) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
        if (!document.getElementById(element.getAttribute(attribute))) offences.push(`${attribute} leads nowhere: ${name(element)}`);
    }
}
for (const cell of document.querySelectorAll('th')) {
    if (!cell.scope) offences.push(`a head of a table without scope: ${name(cell)}`);
}
for (const list of document.querySelectorAll('ul > :not(li), dl > :not(dt, dd, div)')) offences.push(`no entry of a list: ${name(list)}`);
// On a narrow screen, the rows of a table are blocks; they are still rows.
return offences;
