//! What a check has found on the host and in the files that a configuration names.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::sys::mending::Remedy;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Severity {
    /// The server runs, but not as it was meant to: it has to be mended.
    Mistake,
    /// It works now.
    Warning,
    /// It is as it may well be, and somebody may want to know.
    Note,
}

/// One finding. `Display` is its line: `FILE: what, what to do`, or `FILE:LINE: …`, and before
/// what is no mistake yet the word `warning` or `note`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Finding {
    severity: Severity,
    file: PathBuf,
    /// Counted from 1.
    line: Option<usize>,
    text: String,
    /// What mends it, where that is safe.
    remedy: Option<Remedy>,
}

/// All findings, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Findings(Vec<Finding>);

impl Findings {
    /// Notes what has to be mended.
    pub(in crate::cli) fn mistake(
        &mut self,
        file: &Path,
        line: Option<usize>,
        text: impl Into<String>,
    ) {
        self.add(Severity::Mistake, file, line, text.into());
    }

    /// Notes what works now and should be looked at.
    pub(in crate::cli) fn warning(
        &mut self,
        file: &Path,
        line: Option<usize>,
        text: impl Into<String>,
    ) {
        self.add(Severity::Warning, file, line, text.into());
    }

    /// Notes what somebody may want to know.
    pub(in crate::cli) fn note(
        &mut self,
        file: &Path,
        line: Option<usize>,
        text: impl Into<String>,
    ) {
        self.add(Severity::Note, file, line, text.into());
    }

    /// Notes what `remedy` mends, which names the file.
    pub(in crate::cli) fn mendable(&mut self, severity: Severity, text: String, remedy: Remedy) {
        let file = remedy.path.clone();
        self.0.push(Finding { severity, file, line: None, text, remedy: Some(remedy) });
    }

    /// Whether a mistake of that file is noted.
    pub(in crate::cli) fn has_mistake_in(&self, file: &Path) -> bool {
        self.iter().any(|finding| finding.severity == Severity::Mistake && finding.file == file)
    }

    /// Whether anything has to be mended.
    pub(in crate::cli) fn has_mistake(&self) -> bool {
        self.mistakes().next().is_some()
    }

    /// What has to be mended.
    pub(in crate::cli) fn mistakes(&self) -> impl Iterator<Item = &Finding> {
        self.iter().filter(|finding| finding.severity == Severity::Mistake)
    }

    /// The findings.
    pub(in crate::cli) fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    fn add(&mut self, severity: Severity, file: &Path, line: Option<usize>, text: String) {
        self.0.push(Finding { severity, file: file.to_owned(), line, text, remedy: None });
    }
}

impl Finding {
    /// Whether it is no complaint.
    pub(in crate::cli) fn is_note(&self) -> bool {
        self.severity == Severity::Note
    }

    /// What mends it, where that is safe.
    pub(in crate::cli) fn remedy(&self) -> Option<&Remedy> {
        self.remedy.as_ref()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(match self.severity {
            Severity::Mistake => ": ",
            Severity::Warning => ": warning: ",
            Severity::Note => ": note: ",
        })?;
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_only_mistakes_fail() {
        let mut findings = Findings::default();
        findings.warning(Path::new("/a"), None, "it is old; renew it");
        findings.note(Path::new("/a"), None, "it is there");
        assert!(!findings.has_mistake());
        findings.mistake(Path::new("/b"), Some(3), "no name; give one");
        assert!(findings.has_mistake());
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "/a: warning: it is old; renew it",
                "/a: note: it is there",
                "/b:3: no name; give one"
            ]
        );
        assert!(
            findings.has_mistake_in(Path::new("/b")) && !findings.has_mistake_in(Path::new("/a"))
        );
    }
}
