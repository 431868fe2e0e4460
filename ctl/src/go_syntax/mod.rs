//! The textual forms that etcdctl inherits from Go: quoted strings, durations, integers and sizes.

mod duration;
mod integer;
mod quote;
mod size;

pub(crate) use duration::{format_duration, parse_duration};
pub(crate) use integer::{parse_bool, parse_int};
pub(crate) use quote::{quote, split_arguments, unquote_prefix};
pub(crate) use size::human_size;
