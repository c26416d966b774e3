//! What a start finds on the shelf: which segments stand, how far each origin is settled, what belongs in the hot window.

use super::{Inner, Known, ORIGINS_LIMIT, READ_AHEAD, lock};
use crate::{
    positions::Origin,
    segment::{self, Wanted},
    shelf::{Entry, superseded},
    window::Feed,
};
use aether_core::{telemetry::Series, time::Time};
use std::sync::Arc;

impl Inner {
    /// Parts what is on the shelf into the segments that stand and those that were merged into one of these. A merged one
    /// that cannot be read stands for nothing: then its originals, where they are still there, stand for themselves.
    pub(super) async fn standing(&self, mut all: Vec<Entry>) -> (Vec<Entry>, Vec<Entry>) {
        loop {
            let (stand, gone) = superseded(all.clone());
            let replaces = |entry: &&Entry| {
                let within = |other: &Entry| other.first >= entry.first && other.number <= entry.number;
                entry.first < entry.number && gone.iter().any(within)
            };
            let mut unreadable = None;
            for entry in stand.iter().filter(replaces) {
                match self.shelf.content(entry).await {
                    Ok(content) if (content.first, content.number) == (Some(entry.first), entry.number) => {}
                    Ok(_) => unreadable = Some(entry.path.clone()),
                    Err(error) => {
                        self.unreadable(entry, &error);
                        unreadable = Some(entry.path.clone());
                    }
                }
            }
            let Some(path) = unreadable else { return (stand, gone) };
            all.retain(|entry| entry.path != path);
        }
    }

    /// Rebuilds positions from footers, newest first, back to one that names every origin.
    pub(super) async fn restore_positions(&self, entries: &[Entry]) {
        for entry in entries.iter().rev() {
            let content = match self.shelf.content(entry).await {
                Ok(content) => content,
                Err(error) => {
                    self.unreadable(entry, &error);
                    continue;
                }
            };
            let complete = content.complete;
            let mut origins = lock(&self.origins);
            for (id, records) in content.positions {
                // A newer segment knows better.
                if origins.contains_key(&id) || origins.len() >= ORIGINS_LIMIT {
                    continue;
                }
                match Origin::restore(records) {
                    Some(origin) => {
                        let feed = Arc::new(Feed::new(id.clone()));
                        origins.insert(id, Known { origin, feed });
                    }
                    None => tracing::warn!(path = %entry.path, node.id = %id, "a damaged position is not used"),
                }
            }
            drop(origins);
            if complete {
                lock(&self.index).complete = Some(entry.number);
                break;
            }
        }
    }

    pub(super) async fn restore_window(&self, entries: &[Entry], now: Time) {
        let horizon = now.minus_ms(self.settings.hot_window_ms);
        self.window.incomplete_before(horizon);
        let recent: Vec<&Entry> = entries.iter().filter(|e| e.to >= horizon).collect();
        for few in recent.chunks(READ_AHEAD) {
            let wanted = Wanted { from: horizon, ..Wanted::default() };
            let reads = futures::future::join_all(few.iter().map(|e| self.shelf.rows(e, &wanted))).await;
            for (entry, rows) in few.iter().zip(reads) {
                match rows {
                    Ok(rows) => {
                        if self.damaged(entry, &rows) {
                            self.window.incomplete_before(entry.to.plus_ms(1));
                        }
                        self.take_rows(rows, now);
                    }
                    Err(error) => {
                        self.unreadable(entry, &error);
                        self.window.incomplete_before(entry.to.plus_ms(1));
                    }
                }
            }
        }
    }

    fn take_rows(&self, rows: segment::Rows, now: Time) {
        for (key, origin, samples) in rows.series {
            let (times, values): (Vec<_>, Vec<_>) = samples.iter().map(|sample| (sample.at, sample.value)).unzip();
            let source = self.known(&mut lock(&self.origins), &origin).map(|known| Arc::clone(&known.feed.source));
            if let Some(source) = source {
                self.window.insert(&source, Series { key: &Arc::new(key), times: &times, values: &values }, now);
            }
        }
        for (_, event) in &rows.events {
            self.window.insert_event(event, now);
        }
    }
}
