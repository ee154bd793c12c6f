"""The clocks of a node that is started with libfaulty_clock.so (tests/faulty_clock): a wall clock that jumps, a monotonic one that is fast or slow."""
import mmap
import os
import pathlib
import struct

CONTROL = struct.Struct("<qqQ")


def library():
    return os.path.abspath(os.environ.get("OUTRIDER_FAULTY_CLOCK", "libfaulty_clock.so"))


class FaultyClock:
    """Of one node."""

    def __init__(self, beside):
        self.switches = pathlib.Path(beside) / "clock.control"
        self.switches.write_bytes(CONTROL.pack(0, 0, 0))
        with open(self.switches, "r+b") as file:
            self.control = mmap.mmap(file.fileno(), CONTROL.size)

    def environment(self):
        return {"FAULTY_CLOCK_CONTROL": str(self.switches)}

    def set_wall(self, seconds):
        """So far from the machine's, from now on."""
        struct.pack_into("<q", self.control, 0, round(seconds * 1e9))

    def wall(self):
        return CONTROL.unpack(self.control[:])[0] / 1e9

    def set_rate(self, error):
        """0.05: 5 % fast. From the next start of the node on."""
        struct.pack_into("<q", self.control, 8, round(error * 1e6))

    def wall_reads(self):
        return CONTROL.unpack(self.control[:])[2]

    def close(self):
        self.control.close()
