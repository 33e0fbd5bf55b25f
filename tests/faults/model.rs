//! What a disk holds after a power cut, worked out from what was done to it: of what was not
//! flushed there may be any part, and each [`Flavour`] is one way to choose it.
//!
//! | flavour | who leaves this |
//! | --- | --- |
//! | `All`, `Written` | the end of the process alone: `kill -9` |
//! | `Flushed`, `Flushed` | a strict reading of POSIX, when nothing else was written out in time |
//! | `All` with any octets | names written at once and octets later: ext4 without `data=ordered`, FAT |
//! | `Journal` with any octets | ext4 and XFS: each flush commits all names given before |
//! | `OwnOfFile` | btrfs: the flush of a file commits its own names |
//! | `Removals`, `Additions`, `Only`, `AllBut` | no journal, each folder in its own time: ext2 |
//! | `Half` | a length that grew and then the cut; blocks written in order |
//! | `Holes` | the same, blocks written in any order, or a length without blocks as on XFS |
//!
//! On a disk that orders data first, a name that was given after a push is never found without
//! the octets that were pushed: that is the promise of `Folder::orders_data_first`. What was
//! promised to a client must hold by the strict readings too, which know of no push.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::recorder::{At, Event};

/// A tree of files: by path, the content of a file or `None` for a folder.
pub(crate) type Tree = BTreeMap<String, Option<Rc<Content>>>;

/// The octets of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    octets: Vec<u8>,
    hash: u64,
}

impl From<Vec<u8>> for Content {
    fn from(octets: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        octets.hash(&mut hasher);
        Self { octets, hash: hasher.finish() }
    }
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// Which changes of names are found after the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Names {
    /// All that were made.
    All,
    /// Those whose folder was flushed since: the strict reading of POSIX.
    Flushed,
    /// Those before the last flush of anything: a journal that is written in order, as on
    /// ext4 and XFS.
    Journal,
    /// Those whose folder was flushed, and the names of each file that was flushed itself:
    /// a log of single files, as on btrfs.
    OwnOfFile,
    /// Those flushed, and of the rest only what was taken away.
    Removals,
    /// Those flushed, and of the rest only what was added.
    Additions,
    /// Those flushed, and of the rest only what was done in this folder: folders reach the
    /// disk in any order.
    Only(usize),
    /// Those flushed, and of the rest all but what was done in this folder.
    AllBut(usize),
}

impl Names {
    /// Whether a name may be found that no flush was asked to make last.
    const fn are_by_order(self) -> bool {
        !matches!(self, Self::Flushed | Self::OwnOfFile)
    }
}

/// What is found of octets that were written and not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Octets {
    /// All of them.
    Written,
    /// None.
    Flushed,
    /// The first half.
    Half,
    /// The second half, and zeros in the place of the first.
    Holes,
}

/// One choice of what is left.
pub(crate) type Flavour = (Names, Octets);

/// A node, its version, what is found of it, and the octets that are sure by its name.
type Choice = (usize, usize, Octets, usize);

#[derive(Debug)]
pub(crate) struct Model {
    nodes: Vec<Option<File>>,
    by_inode: HashMap<u64, usize>,
    first_names: HashMap<(usize, String), usize>,
    changes: Vec<Change>,
    orders_data_first: bool,
    /// What was worked out already.
    contents: RefCell<HashMap<Choice, Rc<Content>>>,
}

#[derive(Debug, Default)]
struct File {
    /// Counts what was done to it.
    version: usize,
    written: Vec<u8>,
    flushed: Vec<u8>,
    pushed: Option<Rc<Vec<u8>>>,
    /// From here on a flush has failed, and a later one finds nothing to write.
    lost_from: Option<usize>,
}

/// A change of names.
#[derive(Debug)]
struct Change {
    folder: usize,
    name: String,
    node: usize,
    what: What,
    is_flushed: bool,
    is_in_journal: bool,
    is_of_flushed_file: bool,
}

#[derive(Debug)]
enum What {
    /// The name appears, with octets that are never found after it.
    Appears(Option<Rc<Vec<u8>>>),
    Leaves,
    /// It leaves, being renamed: only if the new name appears.
    MovesAway,
}

impl Model {
    /// A disk that holds what is in `root`, all of it flushed.
    pub(crate) fn new(root: &Path, orders_data_first: bool) -> Self {
        let mut model = Self {
            nodes: Vec::new(),
            by_inode: HashMap::new(),
            first_names: HashMap::new(),
            changes: Vec::new(),
            orders_data_first,
            contents: RefCell::default(),
        };
        use std::os::unix::fs::MetadataExt;
        let inode = fs::metadata(root).unwrap().ino();
        let root_node = model.add(inode, None);
        model.load(root, root_node);
        model
    }

    fn load(&mut self, path: &Path, folder: usize) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let is_folder = entry.file_type().unwrap().is_dir();
            let file = (!is_folder).then(|| {
                let octets = fs::read(entry.path()).unwrap();
                File { written: octets.clone(), flushed: octets, ..File::default() }
            });
            let node = self.add(entry.ino(), file);
            self.first_names.insert((folder, name), node);
            if is_folder {
                self.load(&entry.path(), node);
            }
        }
    }

    fn add(&mut self, inode: u64, file: Option<File>) -> usize {
        self.nodes.push(file);
        self.by_inode.insert(inode, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// Takes in what was done.
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::MakeFolder { at, made } => {
                let node = self.add(*made, None);
                self.appear(at, node);
            }
            Event::Create { at, file } => {
                let there = self.node_at(at);
                if there.is_none() || there != self.by_inode.get(file).copied() {
                    let node = self.add(*file, Some(File::default()));
                    self.appear(at, node);
                } else {
                    self.file(*file).written.clear();
                }
            }
            Event::CreateUnnamed { file } => drop(self.add(*file, Some(File::default()))),
            Event::Write { file, octets } => self.file(*file).written.extend(octets),
            Event::Truncate { file, size } => {
                let file = self.file(*file);
                file.written.truncate(*size);
                file.lost_from = file.lost_from.filter(|from| from < size);
            }
            Event::PushOut { file } => {
                let file = self.file(*file);
                file.pushed = Some(Rc::new(file.written.clone()));
            }
            Event::FlushFile { file } => {
                let node = self.by_inode[file];
                self.flush_file(node);
                for change in &mut self.changes {
                    change.is_in_journal = true;
                    change.is_of_flushed_file |= change.node == node;
                }
            }
            Event::FailToFlush { file } => {
                let file = self.file(*file);
                (file.pushed, file.lost_from) = (None, Some(file.flushed.len()));
            }
            Event::FlushFolder { folder } => {
                let folder = self.by_inode[folder];
                for change in &mut self.changes {
                    change.is_in_journal = true;
                    change.is_flushed |= change.folder == folder;
                }
            }
            Event::FlushAll => {
                (0..self.nodes.len()).for_each(|node| self.flush_file(node));
                for change in &mut self.changes {
                    (change.is_in_journal, change.is_flushed) = (true, true);
                }
            }
            Event::Link { from, to } => self.appear(to, self.node_at(from).unwrap()),
            Event::LinkUnnamed { file, to } => self.appear(to, self.by_inode[file]),
            Event::Rename { from, to } => {
                let node = self.node_at(from).unwrap();
                self.change(from, node, What::MovesAway);
                self.appear(to, node);
            }
            Event::Unlink { at } => self.change(at, self.node_at(at).unwrap(), What::Leaves),
            Event::Answer { .. } | Event::Relay { .. } => {}
        }
    }

    /// What is found after a cut at this moment.
    pub(crate) fn tree(&self, (names, octets): Flavour) -> Tree {
        let mut there: BTreeMap<(usize, String), usize> =
            self.first_names.iter().map(|(at, node)| (at.clone(), *node)).collect();
        let mut floors: HashMap<usize, &[u8]> = HashMap::new();
        for change in self.changes.iter().filter(|change| change.is_found(names)) {
            let at = (change.folder, change.name.clone());
            match &change.what {
                What::Appears(floor) => {
                    there.insert(at, change.node);
                    // The strict readings ask for a flush, whatever was pushed out.
                    let floor = floor.as_ref().filter(|_| names.are_by_order());
                    floors.extend(floor.map(|floor| (change.node, floor.as_slice())));
                }
                What::Leaves | What::MovesAway => drop(there.remove(&at)),
            }
        }
        let mut tree = Tree::new();
        let mut folders = vec![(0, String::new())];
        while let Some((folder, path)) = folders.pop() {
            for ((_, name), node) in
                there.range((folder, String::new())..(folder + 1, String::new()))
            {
                let path = format!("{path}{name}");
                let floor = floors.get(node).copied().unwrap_or_default();
                let found = self.content(*node, octets, floor);
                if found.is_none() {
                    folders.push((*node, format!("{path}/")));
                }
                tree.insert(path, found);
            }
        }
        tree
    }

    /// Everything that this disk may have left. One that orders data first has a journal that
    /// is written in order; on others each folder and each file is by itself.
    pub(crate) fn flavours(&self) -> Vec<Flavour> {
        let octets = [Octets::Written, Octets::Flushed, Octets::Half, Octets::Holes];
        let mut names = vec![Names::All, Names::Flushed, Names::Journal, Names::OwnOfFile];
        if !self.orders_data_first {
            names.extend([Names::Removals, Names::Additions]);
            let mut folders: Vec<_> =
                self.changes.iter().filter(|it| !it.is_flushed).map(|it| it.folder).collect();
            folders.sort_unstable();
            folders.dedup();
            names.extend(folders.iter().map(|folder| Names::Only(*folder)));
            names.extend(folders.iter().map(|folder| Names::AllBut(*folder)));
        }
        names.iter().flat_map(|names| octets.map(|octets| (*names, octets))).collect()
    }

    fn content(&self, node: usize, octets: Octets, floor: &[u8]) -> Option<Rc<Content>> {
        let file = self.nodes[node].as_ref()?;
        let key = (node, file.version, octets, floor.len());
        let mut contents = self.contents.borrow_mut();
        let content =
            contents.entry(key).or_insert_with(|| Rc::new(file.found(octets, floor).into()));
        Some(Rc::clone(content))
    }

    fn file(&mut self, inode: u64) -> &mut File {
        let node = self.by_inode[&inode];
        let file = self.nodes[node].as_mut().unwrap();
        file.version += 1;
        file
    }

    fn flush_file(&mut self, node: usize) {
        let Some(file) = &mut self.nodes[node] else { return };
        file.version += 1;
        file.flushed.clone_from(&file.written);
        if let Some(from) = file.lost_from {
            file.flushed.iter_mut().skip(from).for_each(|octet| *octet = 0);
        }
    }

    fn appear(&mut self, at: &At, node: usize) {
        let pushed = self.nodes[node].as_ref().and_then(|file| file.pushed.clone());
        let floor = pushed.filter(|_| self.orders_data_first);
        self.change(at, node, What::Appears(floor));
    }

    fn change(&mut self, at: &At, node: usize, what: What) {
        self.changes.push(Change {
            folder: self.by_inode[&at.folder],
            name: at.name.clone(),
            node,
            what,
            is_flushed: false,
            is_in_journal: false,
            is_of_flushed_file: false,
        });
    }

    fn node_at(&self, at: &At) -> Option<usize> {
        let folder = self.by_inode[&at.folder];
        let last = self.changes.iter().rev().find(|it| it.folder == folder && it.name == at.name);
        match last {
            Some(Change { what: What::Appears(_), node, .. }) => Some(*node),
            Some(_) => None,
            None => self.first_names.get(&(folder, at.name.clone())).copied(),
        }
    }
}

impl Change {
    fn is_found(&self, names: Names) -> bool {
        self.is_flushed
            || match names {
                Names::All => true,
                Names::Flushed => false,
                Names::Journal => self.is_in_journal,
                Names::OwnOfFile => self.is_of_flushed_file,
                Names::Removals => matches!(self.what, What::Leaves),
                Names::Additions => !matches!(self.what, What::Leaves),
                Names::Only(folder) => self.folder == folder,
                Names::AllBut(folder) => self.folder != folder,
            }
    }
}

impl File {
    fn found(&self, octets: Octets, floor: &[u8]) -> Vec<u8> {
        let sure = if floor.len() > self.flushed.len() { floor } else { &self.flushed };
        let Some(more) = self.written.strip_prefix(sure) else {
            // It was cut, and the cut is not flushed: the old size or the new one.
            let is_old = octets == Octets::Flushed;
            return if is_old { sure.to_vec() } else { self.written.clone() };
        };
        let (first, second) = more.split_at(more.len() / 2);
        match octets {
            Octets::Written => self.written.clone(),
            Octets::Flushed => sure.to_vec(),
            Octets::Half => [sure, first].concat(),
            Octets::Holes => [sure, &vec![0; first.len()], second].concat(),
        }
    }
}

/// The tree of the files in `root`.
pub(crate) fn tree_of(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let content = || Rc::new(fs::read(&path).unwrap().into());
            tree.insert(name, (!path.is_dir()).then(content));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    tree
}

/// Makes the files of `tree` in `root`. They are ten minutes old: a lock whose text was lost
/// counts until it is five.
pub(crate) fn restore(tree: &Tree, root: &Path) {
    let then = SystemTime::now() - Duration::from_secs(600);
    for (name, content) in tree {
        match content {
            None => fs::create_dir(root.join(name)).unwrap(),
            Some(content) => {
                fs::write(root.join(name), &content.octets).unwrap();
                if name.ends_with(".lock") {
                    let file = fs::File::options().write(true).open(root.join(name)).unwrap();
                    file.set_modified(then).unwrap();
                }
            }
        }
    }
}
