// Whether an event loop polls or sleeps until its next event: `[runtime] spin`.
//
// Waking a thread that sleeps in the kernel takes longer than a quick answer does. So a loop goes on polling for a while before it
// sleeps, and pays for that with CPU time, when something is about to come: an answer that is outstanding, or, behind one that
// has just ended, its client's next request (at one connection that is half of what there is to gain). The
// loop's users say so. An idle process costs what it costs without.
//
// Pure: the loop asks before each poll and hands in the time.
// Invariants:
//   * never polls with most() == 0, nor after events that leave nothing outstanding and ended no answer
//   * polls for at most most() after the last event; only another event begins that anew
#pragma once

#include <cstddef>

#include "base/time.h"

namespace outrider {

class SpinPolicy {
  public:
    // What happened since the last poll.
    struct Turn {
        bool events = false;      // anything
        std::size_t awaited = 0;  // answers that are outstanding now
        bool answered = false;    // one or more ended
    };

    // Zero: always sleeps.
    void set_most(Duration most) { most_ = most; }
    bool on() const { return most_ > Duration(0); }

    // Before a poll: true when it must not sleep.
    bool polls(Instant now, const Turn& turn);

  private:
    Duration most_{0};
    Instant last_event_{};
    bool answered_ = false;  // in the last turn that had an event
    bool spent_ = true;      // what there was for the last event
};

}  // namespace outrider
