//! A real kernel that sees real paths: a guest in software emulation, started by a test, that runs a list of steps.
//!
//! ```text
//!            host                                 guest
//!  image ──────────────┬── virtio-scsi 0, id 0 ── $disk0_0, $generic0_0 ┐ one disk, two adapters: same WWN
//!                      └── virtio-scsi 1, id 0 ── $disk0_1, $generic0_1 ┘
//!  tgtd ── portal 0 ─ iscsi: ─ virtio-scsi 0 ──── $disk1_0, $generic1_0 ┐ passed through: the target's own answers,
//!       └─ portal 1 ─ iscsi: ─ virtio-scsi 1 ──── $disk1_1, $generic1_1 ┘ and reservations per nexus
//!  image ──────────────┬── NVMe controller 0 ──── $controller0, $namespace0
//!                      └── NVMe controller 1 ──── $controller1, $namespace1
//! ```
//!
//! * [`target`]: the iSCSI target;
//! * [`tools`]: what the programs say that ours are compared with.
//!
//! The shell of a step knows the nodes by these names. Programs of the host run in the guest with their own libraries.
//!
//! Keeps true: the guest ends with the call that began it, or is killed; each step's output is apart from the kernel's words.
//! Not here: what a step should say (the tests); how the guest is made (`tests/guest/guest.sh`).

pub mod target;
pub mod tools;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use tempfile::TempDir;

use target::Target;

/// The longest that a guest may take, boot and all: ten times what it was seen to take on a busy machine.
const RUN_TIME_MAX: Duration = Duration::from_secs(900);
/// How long the guest waits for its nodes, in tenths of a second.
const NODES_WAIT_MAX: u32 = 600;
/// Paths to each disk.
const ADAPTERS: usize = 2;

/// A guest that is being put together.
#[derive(Debug)]
pub struct Guest {
    scratch: TempDir,
    hardware: Vec<String>,
    disk_count: usize,
    has_nvme: bool,
    programs: Vec<PathBuf>,
    steps: Vec<(String, String)>,
}

/// What a step said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Both of its outputs.
    pub text: String,
    /// Its status; `None` where it did not come to its end.
    pub status: Option<i32>,
}

/// What all steps said.
#[derive(Debug)]
pub struct Answers {
    steps: BTreeMap<String, Answer>,
    /// From the start of the emulator to the first step.
    pub boot: Duration,
    /// From the start of the emulator to its end.
    pub whole: Duration,
}

impl Answers {
    /// The answer to the step of that name.
    ///
    /// # Panics
    /// Where there was none, or it was not reached.
    #[must_use]
    pub fn of(&self, step: &str) -> &Answer {
        self.steps
            .get(step)
            .unwrap_or_else(|| panic!("the guest did not get to {step}: {:?}", self.steps.keys()))
    }
}

impl Guest {
    /// A guest with two SCSI adapters and nothing on them.
    ///
    /// # Errors
    /// Where there is no scratch folder.
    pub fn new() -> io::Result<Self> {
        let hardware =
            (0..ADAPTERS).flat_map(|adapter| device(format!("virtio-scsi-pci,id=s{adapter}"))).collect();
        let (programs, steps) = (Vec::new(), Vec::new());
        Ok(Self { scratch: tempfile::tempdir()?, hardware, disk_count: 0, has_nvme: false, programs, steps })
    }

    /// Why this machine cannot run one, if it cannot.
    #[must_use]
    pub fn missing_program() -> Option<String> {
        let needed = ["qemu-system-x86_64", "busybox", "cpio", "modprobe", "depmod", "dpkg"];
        needed.into_iter().find_map(|program| crate::real_paths::find_program(program).err())
    }

    /// An empty disk of the emulator behind both adapters.
    ///
    /// # Errors
    /// Where its image cannot be made.
    pub fn add_disk(&mut self, size_bytes: u64) -> io::Result<()> {
        let image = self.image(size_bytes)?;
        let disk = self.disk_count;
        for adapter in 0..ADAPTERS {
            self.drive(format!(
                "file={image},format=raw,if=none,id=d{disk}{adapter},file.locking=off,cache=none"
            ));
            self.hardware.extend(device(format!(
                "scsi-hd,bus=s{adapter}.0,scsi-id={disk},drive=d{disk}{adapter},serial=LUN{disk},\
                 wwn=0x5000c50015ea71a{disk},share-rw=on"
            )));
        }
        self.disk_count += 1;
        Ok(())
    }

    /// The disk of a target, passed through: one adapter for each of two portals.
    pub fn add_target(&mut self, target: &Target) {
        let disk = self.disk_count;
        for adapter in 0..ADAPTERS {
            let initiator = format!("id=i{disk}{adapter},initiator-name={}:host{adapter}", target::AUTHORITY);
            self.hardware.extend(["-iscsi".to_owned(), initiator]);
            let url = target.url(adapter);
            self.drive(format!("file={url},format=raw,if=none,id=d{disk}{adapter},cache=none"));
            let place = format!("bus=s{adapter}.0,scsi-id={disk},drive=d{disk}{adapter}");
            self.hardware.extend(device(format!("scsi-block,{place}")));
        }
        self.disk_count += 1;
    }

    /// An NVMe subsystem of two controllers that share a namespace.
    ///
    /// # Errors
    /// Where its image cannot be made.
    pub fn add_nvme(&mut self, size_bytes: u64) -> io::Result<()> {
        let image = self.image(size_bytes)?;
        self.hardware.extend(device("nvme-subsys,id=subsystem,nqn=diskwire".to_owned()));
        for controller in 0..ADAPTERS {
            self.hardware.extend(device(format!("nvme,id=c{controller},serial=DISKWIRE,subsys=subsystem")));
        }
        self.drive(format!("file={image},format=raw,if=none,id=namespace"));
        self.hardware.extend(device("nvme-ns,drive=namespace,bus=c0,nsid=1,shared=on".to_owned()));
        self.has_nvme = true;
        Ok(())
    }

    /// A program of the host; steps call it by its file name.
    pub fn add_program(&mut self, program: PathBuf) {
        self.programs.push(program);
    }

    /// What the guest is to do after the steps before, as text for its shell.
    pub fn add_step(&mut self, name: impl Into<String>, shell: impl Into<String>) {
        self.steps.push((name.into(), shell.into()));
    }

    /// Boots it and lets it do its steps. Kernel and modules are kept in `cache`.
    ///
    /// # Errors
    /// With what was said, where the guest could not be made or did not come to its end in time.
    pub fn run(self, cache: &Path) -> io::Result<Answers> {
        let place = |name: &str| self.scratch.path().join(name);
        let (init, image, answers, console) =
            (place("init"), place("initrd.gz"), place("answers"), place("console"));
        call(script("kernel").arg(cache))?;
        fs::write(&init, self.init_text())?;
        call(script("image").args([cache, &image, &init]).args(&self.programs))?;

        let mut run = script("run");
        run.args([cache, &image, &answers]).args(&self.hardware);
        let said = fs::File::create(&console)?;
        let began = Instant::now();
        let child = run.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said).spawn()?;
        let boot = wait_for_end(child, began, &answers).map_err(|error| {
            let said = fs::read(&console).unwrap_or_default();
            let came = fs::read(&answers).unwrap_or_default();
            let [said, came] = [said, came].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            io::Error::other(format!("{error}\nconsole: {said}\nanswers: {came}"))
        })?;
        let whole = began.elapsed();
        // For people: what the last guest said.
        fs::copy(&answers, cache.join("answers"))?;
        let text = String::from_utf8_lossy(&fs::read(&answers)?).into_owned();
        Ok(Answers { steps: parse(&text), boot, whole })
    }

    fn image(&self, size_bytes: u64) -> io::Result<String> {
        let path = self.scratch.path().join(format!("image{}", self.hardware.len()));
        fs::File::create(&path)?.set_len(size_bytes)?;
        Ok(path.display().to_string())
    }

    fn drive(&mut self, drive: String) {
        self.hardware.extend(["-drive".to_owned(), drive]);
    }

    /// Waits for the nodes, gives them their names, and goes through the steps.
    fn init_text(&self) -> String {
        let mut text = format!(
            "await() {{ for i in $(seq {NODES_WAIT_MAX}); do eval \"$1\" && return; sleep 0.1; done; echo \"no $1\"; }}\n"
        );
        let mut name = |variable: String, find: String| {
            writeln!(
                text,
                "await '{variable}=$({find} 2>&-) && [ -n \"${variable}\" ] && [ -e /dev/${variable} ]'; \
                 {variable}=/dev/${variable}"
            )
            .expect("text takes text");
        };
        for disk in 0..self.disk_count {
            for adapter in 0..ADAPTERS {
                let device = format!("/sys/class/scsi_device/{adapter}:0:{disk}:0/device");
                name(format!("disk{disk}_{adapter}"), format!("ls {device}/block"));
                name(format!("generic{disk}_{adapter}"), format!("ls {device}/scsi_generic"));
            }
        }
        for controller in (0..ADAPTERS).filter(|_| self.has_nvme) {
            let folder = format!("$(dirname $(grep -lx {controller} /sys/class/nvme/*/cntlid))");
            name(format!("controller{controller}"), format!("basename {folder}"));
            name(format!("namespace{controller}"), format!("ls {folder} | grep \"^nvme.*n1$\""));
        }
        for (name, shell) in &self.steps {
            writeln!(text, "echo '{BEGIN}{name}'\n{{ {shell}\n}}\nstatus=$?\necho; echo \"{END}$status\"")
                .expect("text takes text");
        }
        text
    }
}

/// Stands before the name of a step.
const BEGIN: &str = "@@ begin ";
/// Stands before its status.
const END: &str = "@@ end ";

fn device(properties: String) -> [String; 2] {
    ["-device".to_owned(), properties]
}

fn script(verb: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/guest.sh");
    let mut command = Command::new(script);
    command.arg(verb);
    command
}

fn call(command: &mut Command) -> io::Result<()> {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output()?;
    let said = || format!("{command:?} ended with {status}: {}", String::from_utf8_lossy(&stderr));
    if status.success() { Ok(()) } else { Err(io::Error::other(said())) }
}

/// Waits until the emulator ends; the time of its first step.
fn wait_for_end(mut child: Child, began: Instant, answers: &Path) -> io::Result<Duration> {
    let mut boot = None;
    loop {
        if boot.is_none() && fs::metadata(answers).is_ok_and(|found| found.len() > 0) {
            boot = Some(began.elapsed());
        }
        if let Some(status) = child.try_wait()? {
            return match boot {
                Some(boot) if status.success() => Ok(boot),
                _ => Err(io::Error::other(format!("the emulator ended with {status}"))),
            };
        }
        if began.elapsed() > RUN_TIME_MAX {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("the guest was killed after {RUN_TIME_MAX:?}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Takes the steps apart.
fn parse(text: &str) -> BTreeMap<String, Answer> {
    let mut steps = BTreeMap::new();
    for part in text.split(BEGIN).skip(1) {
        let (name, rest) = part.split_once('\n').unwrap_or((part, ""));
        let (output, status) = rest.rsplit_once(END).unwrap_or((rest, ""));
        let answer = Answer { text: output.trim_end().to_owned(), status: status.trim().parse().ok() };
        steps.insert(name.trim().to_owned(), answer);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let steps = parse(
            "no node\n@@ begin one\nfirst\nsecond\n\n@@ end 0\n@@ begin two\n\n@@ end 7\n@@ begin three\nhangs",
        );
        let answer = |text: &str, status| Answer { text: text.to_owned(), status };
        assert_eq!(steps.len(), 3);
        assert_eq!(steps["one"], answer("first\nsecond", Some(0)));
        assert_eq!(steps["two"], answer("", Some(7)));
        assert_eq!(steps["three"], answer("hangs", None));
    }
}
