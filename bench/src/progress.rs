//! The progress bar, on standard error, when that is a terminal.

use crate::load::Settings;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Draws bars, or nothing.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) visible: bool,
}

/// The bar of one run: by time, or by count if the run has one.
pub(crate) struct Bar {
    bar: ProgressBar,
    by_count: bool,
}

impl Progress {
    pub(crate) fn bar(self, title: &str, settings: &Settings) -> Bar {
        let by_count = settings.requests.is_some();
        let length = settings
            .requests
            .unwrap_or_else(|| milliseconds(settings.duration));
        let target = if self.visible {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:<20} [{bar:40}] {percent:>3} %  {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(title.to_owned());
        Bar { bar, by_count }
    }
}

impl Bar {
    pub(crate) fn update(&self, elapsed: Duration, done: impl FnOnce() -> u64) {
        if self.bar.is_hidden() {
            return;
        }
        let done = done();
        self.bar.set_position(if self.by_count {
            done
        } else {
            milliseconds(elapsed)
        });
        let rate = crate::load::to_float(done) / elapsed.as_secs_f64().max(0.001);
        self.bar.set_message(format!("{rate:.0}/s"));
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
