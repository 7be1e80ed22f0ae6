//! Where a session's processes run, so that who looks later from the very same place can tell whether they live.
//!
//! A host name proves nothing: two laptops, or all containers of one image, may have the same. A place is one boot of one
//! kernel, seen from one set of namespaces by one user; there a process id with its start time names one process for ever.
//! From anywhere else nothing is known, and then a session counts as alive until its Lease expires.

use std::{fs, io};

use nix::{
    errno::Errno,
    sys::signal::kill,
    unistd::{Pid, Uid},
};
use serde::{Deserialize, Serialize};

/// Those that decide what a process id, a user's number and a start time mean.
const NAMESPACES: [&str; 3] = ["user", "pid", "time"];

/// Where a session's processes run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The kernel's random number of this boot.
    boot: String,
    /// The namespaces, as `/proc` names them.
    namespaces: Vec<String>,
    /// The user's number.
    user: u32,
    /// Each of them alone ends the session when the others have died.
    processes: Vec<Process>,
}

/// A process, whatever else will have its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// In the kernel's ticks since its boot.
    start: u64,
}

impl Place {
    /// Of these processes; `None` where that cannot be told.
    pub fn of(pids: &[i32]) -> Option<Self> {
        let processes = pids.iter().map(|pid| Some(Process { pid: *pid, start: look(*pid).ok()?.start }));
        Some(Self { processes: processes.collect::<Option<_>>()?, ..Self::here()? })
    }

    /// This place, without any process.
    fn here() -> Option<Self> {
        // Somebody else's /proc: the numbers in it are not ours.
        let own = fs::read_link("/proc/self").ok()?;
        if own.to_str()?.parse() != Ok(std::process::id()) {
            return None;
        }
        let namespace = |kind: &&str| match fs::read_link(format!("/proc/self/ns/{kind}")) {
            Ok(name) => Some(name.to_str()?.to_owned()),
            // A kernel without this kind has one for all.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(format!("{kind}:none")),
            Err(_) => None,
        };
        Some(Self {
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned(),
            namespaces: NAMESPACES.iter().map(namespace).collect::<Option<_>>()?,
            user: Uid::current().as_raw(),
            processes: Vec::new(),
        })
    }

    /// Whether it is this one.
    pub(crate) fn is_here(&self) -> bool {
        Self::here().is_some_and(|here| Self { processes: self.processes.clone(), ..here } == *self)
    }

    /// Whether all processes have ended, for certain.
    pub(crate) fn has_ended(&self) -> bool {
        !self.processes.is_empty() && self.is_here() && self.processes.iter().all(Process::has_ended)
    }
}

impl Process {
    fn has_ended(&self) -> bool {
        // A signal that is none: asks for the process without depending on what /proc shows.
        if kill(Pid::from_raw(self.pid), None) == Err(Errno::ESRCH) {
            return true;
        }
        look(self.pid).is_ok_and(|seen| seen.start != self.start || seen.is_dead)
    }
}

struct Look {
    start: u64,
    /// Only its parent has not yet asked for its exit code.
    is_dead: bool,
}

/// proc(5): the third field is the state, the 22nd the start; the second may hold anything, in parentheses.
fn look(pid: i32) -> io::Result<Look> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    match (fields.first(), fields.get(19).map(|field| field.parse())) {
        (Some(state), Some(Ok(start))) => Ok(Look { start, is_dead: matches!(*state, "Z" | "X") }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// Of a process that runs.
    fn place() -> (Child, Place) {
        let child = Command::new("sleep").arg("3600").spawn().unwrap();
        let place = Place::of(&[child.id().cast_signed()]).unwrap();
        (child, place)
    }

    fn ended(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn who_looks_from_the_same_place_sees_whether_one_of_the_processes_lives() {
        let (child, place) = place();
        let own = std::process::id().cast_signed();
        let both = Place::of(&[own, child.id().cast_signed()]).unwrap();
        assert!(!place.has_ended() && !both.has_ended());
        ended(child);
        assert!(place.has_ended() && !both.has_ended());
    }

    #[test]
    fn one_whose_parent_does_not_look_has_ended_as_well() {
        let (mut child, place) = place();
        child.kill().unwrap();
        while !look(place.processes[0].pid).unwrap().is_dead {
            std::thread::yield_now();
        }
        assert!(place.has_ended());
        child.wait().unwrap();
    }

    #[test]
    fn another_process_with_the_same_number_is_not_it() {
        let (child, mut place) = place();
        place.processes[0].start -= 1;
        assert!(place.has_ended());
        ended(child);
    }

    #[test]
    fn from_another_place_nothing_is_known() {
        let (child, place) = place();
        ended(child);
        assert!(place.has_ended());
        let elsewhere = [
            Place { boot: "another".into(), ..place.clone() },
            Place {
                namespaces: vec!["user:[1]".into(), "pid:[2]".into(), "time:[3]".into()],
                ..place.clone()
            },
            Place { user: place.user + 1, ..place.clone() },
            Place { processes: Vec::new(), ..place },
        ];
        assert!(elsewhere.iter().all(|place| !place.has_ended()));
    }
}
