//! `get` and `watch`: one canary in full, once or until its run ends.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    list::{name, yaml},
    output::{print, remark, text_width, unless_closed},
    read::{Context, Depth, now},
    screen::{Interrupt, Interrupts, Screen, screen_size, stop},
    trouble::Stop,
};
use crate::{
    api::percent::Percent,
    cli::client::{Canary, Code, Format, Get},
    shell::api_server::ClusterError,
    snapshot::Kind,
    view::{
        State, View,
        render::{Columns, Line, Table, change_line, detail, head, row},
    },
};

/// How often a screen is drawn without a change, because it shows ages and remaining times.
const TICK: Duration = Duration::from_secs(1);
/// After this many ticks without a change of the canary, its pods and events are read again.
const READ_AGAIN: u32 = 5;

/// Shows a canary.
pub async fn get(context: &Context, get: &Get) -> Result<Code, Stop> {
    if get.watch {
        return Watching::new(context, &get.name, get.output).run().await;
    }
    let canary = context.canary(&get.name).await?;
    let view = context.view(canary, Depth::All).await;
    show(context, &view, get.output)?;
    Ok(Code::Yes)
}

/// Shows a canary until its run ends.
pub async fn watch(context: &Context, canary: &Canary) -> Result<Code, Stop> {
    Watching::new(context, &canary.name, canary.output)
        .run()
        .await
}

/// Prints a view.
pub fn show(context: &Context, view: &View, format: Format) -> Result<(), Stop> {
    match format {
        Format::Json => print(&format!("{:#}\n", view.json())),
        Format::Yaml => print(&yaml(&view.json())),
        Format::Name => print(&name(view)),
        Format::Table => context.output.lines(&lines(context, view, text_width())),
        Format::Wide => {
            let columns = Columns {
                namespace: true,
                wide: true,
            };
            let rows = [head(columns), row(view, columns, now())];
            context.output.lines(&Table::default().lines(&rows))
        }
    }
}

fn lines(context: &Context, view: &View, width: usize) -> Vec<Line> {
    detail(view, width, now(), &context.typed)
}

/// A canary that is watched.
struct Watching<'a> {
    context: &'a Context,
    name: &'a str,
    format: Format,
    screen: Option<Screen>,
    /// Whether a run was in progress.
    has_run: bool,
    /// The last change that was printed: state, weight and sentence.
    printed: Option<(State, Percent, String)>,
}

impl<'a> Watching<'a> {
    fn new(context: &'a Context, name: &'a str, format: Format) -> Self {
        Self {
            context,
            name,
            format,
            screen: None,
            has_run: false,
            printed: None,
        }
    }

    /// Shows each change, until the run ends. Returns whether the version was promoted.
    async fn run(mut self) -> Result<Code, Stop> {
        // If the canary does not exist, the command ends with an error; it does not wait until the canary is created.
        let canary = self.context.canary(self.name).await?;
        let mut view = self.context.view(canary.clone(), Depth::All).await;
        let mut latest = canary;
        // Listen before the screen opens, so that an interrupt restores the terminal.
        let mut interrupts = Interrupt::listen()?;
        if self.format == Format::Table && self.context.output.redraws() {
            self.screen = Some(Screen::open(self.context.output.colors())?);
        }
        let person = &self.context.person;
        let mut changes = pin!(person.watch(Kind::Canary, person.namespace(), self.name));
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut since_read = 0;
        loop {
            let drawn = self.draw(&view);
            if let Some(code) = self.is_over(&view) {
                unless_closed(drawn)?;
                drop(self.screen.take());
                return self.end(&view, code);
            }
            drawn?;
            tokio::select! {
                change = changes.next() => if let Some(canary) = self.changed(change)? {
                    latest = canary;
                    match self.read(&latest, &mut interrupts).await? {
                        Some(read) => view = read,
                        None => return Ok(Code::Undecided),
                    }
                    since_read = 0;
                },
                _ = ticks.tick() => {
                    since_read += 1;
                    if since_read >= READ_AGAIN && self.screen.is_some() {
                        match self.read(&latest, &mut interrupts).await? {
                            Some(read) => view = read,
                            None => return Ok(Code::Undecided),
                        }
                        since_read = 0;
                    }
                }
                interrupt = interrupts.next() => if self.ends(&interrupt)? {
                    return Ok(Code::Undecided);
                },
            }
        }
    }

    /// The view of a canary; `None` if a person ends the command before the API server has answered.
    async fn read(
        &mut self,
        canary: &Value,
        interrupts: &mut Interrupts,
    ) -> Result<Option<View>, Stop> {
        let context = self.context;
        let mut reading = pin!(context.view(canary.clone(), Depth::All));
        loop {
            tokio::select! {
                view = &mut reading => return Ok(Some(view)),
                interrupt = interrupts.next() => if self.ends(&interrupt)? {
                    return Ok(None);
                },
            }
        }
    }

    /// Handles an interrupt. Returns whether the command ends.
    fn ends(&mut self, interrupt: &Interrupt) -> Result<bool, Stop> {
        match (interrupt, self.screen.as_mut()) {
            (Interrupt::End, _) => return Ok(true),
            (Interrupt::Resized, Some(screen)) => screen.forget(),
            (Interrupt::Stopped, Some(screen)) => screen.sleep()?,
            (Interrupt::Stopped, None) => stop(),
            (Interrupt::Resized, None) => {}
        }
        Ok(false)
    }

    /// The canary after a change; `None` if the watch failed and is about to be repeated.
    fn changed(
        &mut self,
        change: Option<Result<Option<Value>, ClusterError>>,
    ) -> Result<Option<Value>, Stop> {
        match change {
            Some(Ok(Some(canary))) => Ok(Some(canary)),
            Some(Ok(None)) => Err(self.context.wants("watch", self.name).missing()),
            Some(Err(error)) if error.code().is_some() => {
                Err(self.context.wants("watch", self.name).failed(&error))
            }
            Some(Err(error)) => {
                if self.screen.is_none() {
                    remark(&error.to_string());
                }
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn draw(&mut self, view: &View) -> Result<(), Stop> {
        if let Some(screen) = &mut self.screen {
            let (width, _) = screen_size();
            let lines = lines(self.context, view, width);
            return screen.draw(&lines);
        }
        let change = (view.state, view.weight.intended, view.sentence.clone());
        if self.printed.as_ref() == Some(&change) {
            return Ok(());
        }
        self.printed = Some(change);
        match self.format {
            Format::Json => print(&format!("{}\n", view.json())),
            Format::Yaml => print(&yaml(&view.json())),
            Format::Name => print(&name(view)),
            Format::Table | Format::Wide => self.context.output.lines(&[change_line(view, now())]),
        }
    }

    /// The exit code, if a run was in progress while this command watched, and the run is over.
    fn is_over(&mut self, view: &View) -> Option<Code> {
        self.has_run |= view.state.is_in_run();
        if !self.has_run {
            return None;
        }
        match view.state {
            State::Promoted => Some(Code::Yes),
            State::Failed => Some(Code::No),
            _ => None,
        }
    }

    /// Leaves the last picture on the terminal.
    fn end(&self, view: &View, code: Code) -> Result<Code, Stop> {
        if self.printed.is_none() {
            unless_closed(show(self.context, view, Format::Table))?;
        }
        Ok(code)
    }
}
