// Whether a round that will be synced lets the workers run once more before it begins. Pure: the caller yields and counts.
//
// While one sync runs, the next round gathers; for few questions that is best. For many, each sync also takes CPU (system calls,
// two threads that are woken), and the store's thread, woken by the disk, pushes a worker of the same core aside that would have
// brought more in the same moment. So after a large round the thread yields its core until that brings nothing more. Where
// nobody else is ready to run, that costs a system call and no time. (PostgreSQL's commit_delay with commit_siblings has the same
// purpose, and a time that somebody must choose.)
//
// Invariants
//   * A round whose predecessor was smaller than kWorthwhile, or waited for no sync, begins at once.
//   * At most kYields a round.
//   * A yield that took longer than kForeign went to somebody else: no more of them for kPause rounds.
#pragma once

#include <chrono>
#include <cstddef>

#include "base/time.h"

namespace outrider::idempotency {

class Gathering {
  public:
    static constexpr std::size_t kWorthwhile = 8;
    static constexpr int kYields = 16;
    static constexpr Duration kForeign = std::chrono::microseconds(1000);
    static constexpr int kPause = 64;

    // A round of so many questions is over. `synced`: it waited for the disk.
    void finished(std::size_t questions, bool synced);
    // A round is about to begin. True: yield, then tell yielded().
    bool begins();
    // There are `more` questions than before. True: yield again.
    bool yielded(std::size_t more, Duration took);

  private:
    bool worthwhile_ = false;
    int yields_ = 0;  // of this round
    int pause_ = 0;   // rounds
};

}  // namespace outrider::idempotency
