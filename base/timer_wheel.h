// Deadlines of many objects on one loop, at the cost of a store for the common case.
//
// A connection moves its deadline with every request but almost never reaches it. So schedule() with a
// later deadline only writes the new value; the node stays in its old slot and is put further down when that
// slot comes up. cancel() is a store as well. Hierarchical wheel after Varghese and Lauck, "Hashed and
// Hierarchical Timing Wheels" (1987), scheme 7.
//
// Pure: time comes in as arguments; the shell arms one timer for next_wakeup().
// Invariants:
//   * a node never fires before its deadline, and at most one tick (1 ms) after it when advance() is called in time
//   * a linked node's slot is never later than its deadline
//   * a Timer that is destroyed is no longer linked
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/time.h"

namespace outrider {

class TimerWheel;

// Base of whatever has a deadline. One deadline per Timer.
class Timer {
  public:
    Timer() = default;
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    virtual ~Timer() { unlink(); }

    bool scheduled() const { return deadline_ != Instant::max(); }
    Instant deadline() const { return deadline_; }

  protected:
    virtual void on_timeout(Instant now) = 0;

  private:
    friend class TimerWheel;
    void unlink();

    Timer* prev_ = nullptr;  // null when not linked
    Timer* next_ = nullptr;
    TimerWheel* wheel_ = nullptr;  // null when not linked
    std::uint64_t slot_tick_ = 0;  // the tick at which the wheel looks at this node again
    Instant deadline_ = Instant::max();
};

class TimerWheel {
  public:
    explicit TimerWheel(Instant start);
    TimerWheel(const TimerWheel&) = delete;
    TimerWheel& operator=(const TimerWheel&) = delete;
    ~TimerWheel();

    void schedule(Timer& timer, Instant deadline);
    void cancel(Timer& timer) { timer.deadline_ = Instant::max(); }

    // Fires everything due at `now`. Timers may be scheduled, cancelled and destroyed from on_timeout().
    void advance(Instant now);

    // When advance() should be called next: nothing when no node is linked. May be early, never late.
    std::optional<Instant> next_wakeup() const;

  private:
    friend class Timer;
    static constexpr unsigned kLevels = 5;  // 64^5 ms = 12 days; later deadlines are looked at again then
    static constexpr unsigned kSlotBits = 6;
    static constexpr unsigned kSlots = 1u << kSlotBits;

    struct Level {
        std::uint64_t occupied = 0;  // bit s: slot s is not empty
        std::array<Timer*, kSlots> heads{};
    };

    std::uint64_t tick_of(Instant at) const;
    std::uint64_t tick_not_before(Instant at) const;
    void link(Timer& timer, std::uint64_t tick);
    void place(Timer& timer);
    void cascade(unsigned level);
    void fire_current(Instant now);

    Instant start_;
    std::uint64_t current_ = 0;  // every tick up to and including this one has been run
    std::array<Level, kLevels> levels_;
    std::size_t linked_ = 0;
};

}  // namespace outrider
