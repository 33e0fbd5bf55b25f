//! The INI file into typed settings, with the line in every error.
//!
//! A file walks through four stations. `ini` splits its text into sections, keys and values
//! and remembers their lines. `names` holds them against the one table of everything that a
//! file may say, [`reference`](mod@reference): an unknown name and a key that does nothing yet
//! are mistakes. `load`, `local`, `login` and `next_hop` turn the values into [`settings`], each by
//! one of the readers in `values`, `addresses` and `paths`; what the file leaves out is read from
//! the table's own default, so there is one place that knows it. All mistakes are gathered and
//! reported together, in the order of the file.
//!
//! Nothing here looks at the host: whether an account or a folder exists is asked elsewhere.

mod addresses;
mod connections;
pub mod edit;
mod host_names;
mod ini;
pub mod keys;
mod load;
mod local;
mod login;
mod mailboxes;
pub mod manual;
mod mistake;
mod names;
mod next_hop;
mod paths;
mod reader;
pub mod reference;
mod reserved;
pub mod sample;
pub mod settings;
mod values;

pub use addresses::host_and_port;
pub use host_names::HostNames;
pub use load::{line_of, load, parse};
pub use mistake::{ConfigError, Mistake};
