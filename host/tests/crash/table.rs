//! What was seen, by step.

use super::{Who, scene::Ran};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

/// How many kills may miss their step before it is left.
const TRIES: usize = 4;
const BEGIN: &str = "<!-- begin: make crash -->";
const END: &str = "<!-- end: make crash -->";

#[derive(Default)]
struct Row {
    kills: usize,
    endings: BTreeMap<String, usize>,
    twice: usize,
    lost: usize,
    lost_said: usize,
    again: u64,
}

#[derive(Default)]
pub(crate) struct Table {
    rows: BTreeMap<(Who, &'static str), Row>,
    /// How often each step was aimed at.
    aimed: BTreeMap<(Who, &'static str), usize>,
    bad: Vec<String>,
}

impl Table {
    /// The next step to aim at.
    pub(crate) fn next(&mut self, times: usize) -> Option<(Who, &'static str)> {
        let kills = |who: Who, step: &'static str| self.rows.get(&(who, step)).map_or(0, |row| row.kills);
        let aimed = |who: Who, step: &'static str| self.aimed.get(&(who, step)).copied().unwrap_or_default();
        let all = Who::ALL.into_iter().flat_map(|who| who.steps().iter().map(move |step| (who, *step)));
        let open = all.filter(|(who, step)| kills(*who, step) < times && aimed(*who, step) < TRIES * times);
        // Least often first, so that what is cut short has seen something of every step.
        let next = open.min_by_key(|(who, step)| aimed(*who, step))?;
        *self.aimed.entry(next).or_default() += 1;
        Some(next)
    }

    pub(crate) fn note(&mut self, who: Who, ran: &Ran) {
        let Some(step) = ran.killed_at else { return };
        let row = self.rows.entry((who, step)).or_default();
        row.kills += 1;
        *row.endings.entry(ran.resolution.clone()).or_default() += 1;
        row.twice += usize::from(ran.twice || !ran.repeated.is_empty());
        row.lost += usize::from(ran.lost && !ran.said);
        row.lost_said += usize::from(ran.lost && ran.said);
        row.again += ran.again;
        if ran.is_bad() {
            self.bad.push(format!("{} at `{step}`: {}", who.name(), ran.told()));
        }
    }

    pub(crate) fn check(&self) {
        assert!(self.bad.is_empty(), "{}\n{}", self.bad.join("\n"), self.text());
    }

    pub(crate) fn is_full(&self, times: usize) -> bool {
        let kills = |who: Who, step: &'static str| self.rows.get(&(who, step)).map_or(0, |row| row.kills);
        Who::ALL.into_iter().all(|who| who.steps().iter().all(|step| kills(who, step) >= times))
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::from(
            "| killed | after this entry of its journal | kills | how the incidents ended | ran twice | lost, unsaid | lost, said | counted again |\n\
             |---|---|---:|---|---:|---:|---:|---:|\n",
        );
        for (who, step) in Who::ALL.into_iter().flat_map(|who| who.steps().iter().map(move |step| (who, *step))) {
            let nothing = Row::default();
            let row = self.rows.get(&(who, step)).unwrap_or(&nothing);
            let endings: Vec<String> =
                row.endings.iter().map(|(ending, times)| format!("{times} `{ending}`")).collect();
            let Row { kills, endings: _, twice, lost, lost_said, again } = row;
            let _ = writeln!(
                text,
                "| {} | {step} | {kills} | {} | {twice} | {lost} | {lost_said} | {again} |",
                who.name(),
                endings.join(", ")
            );
        }
        let sum = |of: fn(&Row) -> usize| self.rows.values().map(of).sum::<usize>();
        let _ = writeln!(
            text,
            "| **all** | | **{}** | | **{}** | **{}** | **{}** | |",
            sum(|row| row.kills),
            sum(|row| row.twice),
            sum(|row| row.lost),
            sum(|row| row.lost_said)
        );
        text
    }

    /// Puts the table between its marks.
    pub(crate) fn write(&self, file: &Path, times: usize) {
        let page = fs::read_to_string(file).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let missing = if self.is_full(times) { "" } else { "\nA step with fewer kills is over too soon to be met.\n" };
        fs::write(file, format!("{before}{BEGIN}\n\n{}{missing}\n{END}{after}", self.text())).unwrap();
    }
}
