"""The disk under a node that is started with libfaulty_disk.so (tests/faulty_disk): errors on demand, and power losses.

The library writes down what the node does to its files. From that a VirtualDisk knows what has been synced; a power loss makes the
directory anew from it, and from what chance lets survive of the rest:
  * names (created, renamed, deleted, made directories): those since the last fsync of their directory, up to some point in their order.
    Which is what journalling file systems give; a file that was synced may still be lost with its name
  * bytes and sizes: those since the file's last fdatasync, up to some write, or beyond that page by page or sector by sector in any order,
    with the old bytes between
"""
import errno
import mmap
import os
import pathlib
import shutil
import struct

RECORD = struct.Struct("<B3xiQII")
CONTROL = struct.Struct("<iiqQII")
SECTOR = 512
PAGE = 4096


def library():
    return os.path.abspath(os.environ.get("OUTRIDER_FAULTY_DISK", "libfaulty_disk.so"))


class Inode:
    """A file's bytes or a directory's names: as they are on the disk, and what has been done since."""

    def __init__(self, directory=False):
        self.directory = directory
        self.durable = {} if directory else bytearray()
        self.pending = []
        self.done = 0  # operations that are durable
        self.now = {} if directory else None  # names as the process sees them

    def mark(self):
        return self.done + len(self.pending)

    def commit(self, mark):
        count = max(0, mark - self.done)
        for operation in self.pending[:count]:
            apply(self.durable, operation)
        del self.pending[:count]
        self.done += count


    def bytes_now(self):
        """A file's, as the process sees them."""
        found = bytearray(self.durable)
        for operation in self.pending:
            apply(found, operation)
        return bytes(found)

    def follow(self, real):
        """The file is `real`: what leads there is pending."""
        now = self.bytes_now()
        if now == real:
            return
        if len(now) != len(real):
            self.pending.append(("truncate", len(real)))
            now = now[:len(real)].ljust(len(real), b"\0")
        at = next((at for at in range(0, len(real), SECTOR) if now[at:at + SECTOR] != real[at:at + SECTOR]), len(real))
        if at < len(real):
            self.pending.append(("write", at, real[at:]))


def apply(state, operation):
    kind, *rest = operation
    if kind == "write":
        offset, data = rest
        if len(state) < offset:
            state.extend(bytes(offset - len(state)))
        state[offset:offset + len(data)] = data
    elif kind == "truncate":
        size, = rest
        if size <= len(state):
            del state[size:]
        else:
            state.extend(bytes(size - len(state)))
    elif kind == "link":
        name, inode = rest
        state[name] = inode
    elif kind == "unlink":
        state.pop(rest[0], None)
    else:
        old, new = rest
        state[new] = state.pop(old)


class VirtualDisk:
    """What the journal tells, without any file: replay() takes records, lose() decides what a power loss leaves."""

    def __init__(self, root):
        self.root = str(root)
        self.top = Inode(directory=True)
        self.open = {}
        self.syncs = {}

    def _find(self, path):
        """The directory and the name in it."""
        if path == self.root:
            return self.top, None
        inode = self.top
        *between, name = path[len(self.root) + 1:].split("/")
        for part in between:
            inode = inode.now[part]
        return inode, name

    def _change(self, directory, operation):
        directory.pending.append(operation)
        apply(directory.now, operation)

    def replay(self, text):
        """How many bytes of it are whole records: a killed process may leave a part of its last."""
        at = 0
        while at + RECORD.size <= len(text):
            operation, fd, number, first, second = RECORD.unpack_from(text, at)
            end = at + RECORD.size + first + second
            if end > len(text):
                break
            middle = at + RECORD.size + first
            self._take(chr(operation), fd, number, text[at + RECORD.size:middle], text[middle:end])
            at = end
        return at

    def _take(self, operation, fd, number, first, second):
        if operation == "W":
            self.open[fd].pending.append(("write", number, first))
        elif operation == "T":
            self.open[fd].pending.append(("truncate", number))
        elif operation == "S":
            self.syncs[number] = (self.open[fd], self.open[fd].mark())
        elif operation == "E":
            inode, mark = self.syncs.pop(number)
            inode.commit(mark)
        elif operation == "O":
            self._open(fd, number, first.decode())
        elif operation == "R":
            (directory, old), (other, new) = self._find(first.decode()), self._find(second.decode())
            assert directory is other, "a rename stays in its directory"
            self._change(directory, ("rename", old, new))
        else:
            directory, name = self._find(first.decode())
            if name is not None:
                self._change(directory, ("link", name, Inode(directory=True)) if operation == "M" else ("unlink", name))

    def _open(self, fd, flags, path):
        directory, name = self._find(path)
        if name is None:
            self.open[fd] = directory
            return
        if flags & 1:
            self._change(directory, ("link", name, Inode()))
        inode = self.open[fd] = directory.now[name]
        if flags & 2:
            inode.pending.append(("truncate", 0))

    def process_ended(self):
        self.open.clear()
        self.syncs.clear()

    def catch_up(self, path, inode=None):
        """Another process goes on with the files at `path`: what the last one did and had no time to write down, since it was killed, has
        been done, and is durable when this one syncs it."""
        inode = inode or self.top
        there = {entry.name: entry for entry in pathlib.Path(path).iterdir()}
        for name in sorted(set(there) - set(inode.now)):
            if there[name].is_dir():
                self._change(inode, ("link", name, Inode(directory=True)))
                continue
            content = there[name].read_bytes()
            origin = next((old for old, child in inode.now.items()
                           if old not in there and not child.directory and child.bytes_now() == content), None)
            self._change(inode, ("rename", origin, name) if origin else ("link", name, Inode()))
        for name in sorted(set(inode.now) - set(there)):
            self._change(inode, ("unlink", name))
        for name, child in inode.now.items():
            if child.directory:
                self.catch_up(there[name], child)
            else:
                child.follow(there[name].read_bytes())

    def sync_all(self, inode=None):
        """As if all of it had been synced."""
        inode = inode or self.top
        inode.commit(inode.mark())
        for child in inode.durable.values() if inode.directory else ():
            self.sync_all(child)

    def lose(self, rng, spare=True):
        """The power fails: what was not synced is gone, or (`spare`) not, as chance has it. What is left counts as synced."""
        self._lose(self.top, rng, spare, set())

    def _lose(self, inode, rng, spare, seen):
        if id(inode) in seen:
            return
        seen.add(id(inode))
        if not spare:
            inode.pending.clear()
        keep = rng.choice([0, 0, len(inode.pending), rng.randint(0, len(inode.pending))])
        old = None if inode.directory else bytes(inode.durable)
        for operation in inode.pending[:keep]:
            apply(inode.durable, operation)
        if not inode.directory:
            beyond = bytearray(inode.durable)
            for operation in inode.pending[keep:keep + rng.choice([0, 1, len(inode.pending)])]:
                apply(beyond, operation)
            inode.durable = mixed(old, inode.durable, beyond, rng)
        inode.pending.clear()
        if inode.directory:
            inode.now = dict(inode.durable)
            for child in inode.durable.values():
                self._lose(child, rng, spare, seen)

    def write_to(self, path, inode=None):
        """The durable state as files."""
        inode = inode or self.top
        for name, child in inode.durable.items():
            where = pathlib.Path(path) / name
            if child.directory:
                where.mkdir(mode=0o700)
                self.write_to(where, child)
            else:
                where.write_bytes(child.durable)
                where.chmod(0o600)


def mixed(old, first, beyond, rng):
    """`first`, with pieces of what came before and after it."""
    how = rng.choice(["none", "tail", "pages", "sectors"])
    if how == "none":
        return first
    piece = PAGE if how == "pages" else SECTOR
    out = bytearray(rng.choice([first, beyond]))
    for at in range(0, len(out), piece):
        versions = [version[at:at + piece] for version in (old, first, beyond)]
        if versions[0] == versions[1] == versions[2]:
            continue
        # The tail of a torn write: its beginning is there.
        chosen = versions[2] if how == "tail" and rng.random() < 0.8 else rng.choice(versions)
        out[at:at + piece] = (chosen + bytes(piece))[:len(out[at:at + piece])]
        if how == "tail" and chosen is not versions[2]:
            del out[at:]
            break
    return out


class FaultyDisk:
    """Of one node: its directory, the library's journal and its switches."""

    def __init__(self, root, beside):
        self.root = pathlib.Path(root)
        self.journal = pathlib.Path(beside) / "disk.journal"
        self.switches = pathlib.Path(beside) / "disk.control"
        self.switches.write_bytes(CONTROL.pack(0, 0, -1, 0, 0, 0))
        with open(self.switches, "r+b") as file:
            self.control = mmap.mmap(file.fileno(), CONTROL.size)
        self.virtual = VirtualDisk(self.root)

    def environment(self):
        """Of a program on this disk, beside the library in LD_PRELOAD."""
        return {"FAULTY_DISK_ROOT": str(self.root), "FAULTY_DISK_JOURNAL": str(self.journal), "FAULTY_DISK_CONTROL": str(self.switches)}

    # Each switch is written alone: the node counts in the same file.
    def fail_syncs(self, error=errno.EIO):
        struct.pack_into("<i", self.control, 0, error)

    def lie(self, on=True):
        """Syncs succeed and do nothing, as on a disk with a volatile cache that says otherwise."""
        struct.pack_into("<i", self.control, 4, int(on))

    def room(self, size):
        struct.pack_into("<q", self.control, 8, size)

    def delay_syncs(self, seconds):
        """Each takes so much longer."""
        struct.pack_into("<I", self.control, 24, round(seconds * 1e3))

    def heal(self):
        self.fail_syncs(0)
        self.room(-1)
        self.delay_syncs(0)

    def failures(self):
        return CONTROL.unpack(self.control[:])[3]

    def delayed(self):
        """Syncs that took longer."""
        return CONTROL.unpack(self.control[:])[5]

    def absorb(self):
        """The process has ended: what it wrote to the journal is known from now on."""
        if self.journal.exists():
            self.virtual.replay(self.journal.read_bytes())
            self.journal.write_bytes(b"")
        self.virtual.process_ended()

    def before_start(self):
        self.absorb()
        if self.root.exists():
            self.virtual.catch_up(self.root)

    def power_loss(self, rng, spare=True):
        """The process has been killed."""
        self.absorb()
        self.virtual.lose(rng, spare)
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(mode=0o700)
        self.virtual.write_to(self.root)

    def close(self):
        self.control.close()
