//! Small live worlds, checked after every step.

use super::*;
