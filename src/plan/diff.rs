//! The lines in which two texts differ.

use serde::Serialize;

use crate::view::{
    render::{Line, Style},
    text::clean,
};

/// How many equal lines are shown before and after a difference.
const AROUND: usize = 2;
/// Longer texts are compared as a whole: the comparison takes the product of both.
const LONGEST: usize = 1_000;

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffLine {
    /// `+`, `-`, or a blank for an equal line; `…` stands for lines that are left out.
    pub sign: char,
    /// The line.
    pub text: String,
}

impl DiffLine {
    /// The line for a terminal.
    pub fn line(&self) -> Line {
        let style = match self.sign {
            '+' => Style::Good,
            '-' => Style::Bad,
            _ => Style::Dim,
        };
        let indent = self.text.len() - self.text.trim_start().len();
        let text = format!("    {} {}{}", self.sign, " ".repeat(indent), clean(&self.text));
        Line::default().and(style, text)
    }
}

/// The difference of two texts.
pub fn diff(before: &str, after: &str) -> Vec<DiffLine> {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let all = if old.len().max(new.len()) > LONGEST {
        let removed = old.iter().map(|text| ('-', *text));
        removed.chain(new.iter().map(|text| ('+', *text))).collect()
    } else {
        compare(&old, &new)
    };
    let is_near = |position: usize| {
        let from = position.saturating_sub(AROUND);
        all.iter().take(position + AROUND + 1).skip(from).any(|(sign, _)| *sign != ' ')
    };
    let mut shown = Vec::new();
    let line = |sign, text: &str| DiffLine {
        sign,
        text: text.to_owned(),
    };
    let mut left_out = false;
    for (position, (sign, text)) in all.iter().enumerate() {
        if is_near(position) {
            if left_out {
                shown.push(line('…', ""));
            }
            shown.push(line(*sign, text));
        }
        left_out = !is_near(position);
    }
    shown
}

/// All lines of both texts, by the longest sequence that they have in common.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    // `common[i][j]`: the length of that sequence in the texts from these lines on.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut all) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            all.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            all.push(('-', old[i]));
            i += 1;
        } else {
            all.push(('+', new[j]));
            j += 1;
        }
    }
    all
}
