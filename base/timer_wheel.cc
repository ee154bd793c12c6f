#include "base/timer_wheel.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace outrider {

namespace {
constexpr Duration kTick = std::chrono::milliseconds(1);
}

void Timer::unlink() {
    if (wheel_ == nullptr) return;
    if (next_ != nullptr) next_->prev_ = prev_;
    if (prev_ != nullptr) {
        prev_->next_ = next_;
    } else {
        // First of its slot. The slot follows from slot_tick_, but finding the level again would repeat
        // link(); searching the five candidate heads is as cheap and cannot disagree.
        for (unsigned level = 0; level < TimerWheel::kLevels; ++level) {
            const unsigned slot = static_cast<unsigned>(slot_tick_ >> (level * TimerWheel::kSlotBits)) &
                                  (TimerWheel::kSlots - 1);
            auto& l = wheel_->levels_[level];
            if (l.heads[slot] != this) continue;
            l.heads[slot] = next_;
            if (next_ == nullptr) l.occupied &= ~(std::uint64_t{1} << slot);
            break;
        }
    }
    --wheel_->linked_;
    prev_ = next_ = nullptr;
    wheel_ = nullptr;
}

TimerWheel::TimerWheel(Instant start) : start_(start) {}

TimerWheel::~TimerWheel() {
    for (Level& level : levels_) {
        for (Timer* head : level.heads) {
            while (head != nullptr) {
                Timer* next = head->next_;
                head->prev_ = head->next_ = nullptr;
                head->wheel_ = nullptr;
                head = next;
            }
        }
    }
}

std::uint64_t TimerWheel::tick_of(Instant at) const {
    return at <= start_ ? 0 : static_cast<std::uint64_t>((at - start_) / kTick);
}

std::uint64_t TimerWheel::tick_not_before(Instant at) const {
    if (at <= start_) return 0;
    if (at - start_ > std::chrono::hours(24 * 3650)) return tick_of(start_ + std::chrono::hours(24 * 3650));
    return static_cast<std::uint64_t>((at - start_ + kTick - Duration(1)) / kTick);
}

void TimerWheel::schedule(Timer& timer, Instant deadline) {
    timer.deadline_ = deadline;
    if (deadline == Instant::max()) return;
    if (timer.wheel_ != nullptr) {
        if (timer.slot_tick_ <= std::max(tick_not_before(deadline), current_ + 1)) return;
        timer.unlink();
    }
    place(timer);
}

void TimerWheel::place(Timer& timer) {
    link(timer, std::max(tick_not_before(timer.deadline_), current_ + 1));
}

void TimerWheel::link(Timer& timer, std::uint64_t tick) {
    // The highest six-bit digit in which the tick differs from the current one says the level.
    const std::uint64_t differs = tick ^ current_;
    unsigned level = static_cast<unsigned>(63 - std::countl_zero(differs | 1)) / kSlotBits;
    if (level >= kLevels) {
        // Only the top level wraps round: its slots stand for the next 63 spans. What lies beyond is looked at again then.
        level = kLevels - 1;
        const std::uint64_t now_span = current_ >> (kSlotBits * level);
        if ((tick >> (kSlotBits * level)) - now_span >= kSlots)
            tick = (now_span + kSlots - 1) << (kSlotBits * level);
    }
    const unsigned slot = static_cast<unsigned>(tick >> (level * kSlotBits)) & (kSlots - 1);
    Level& l = levels_[level];
    timer.slot_tick_ = tick;
    timer.wheel_ = this;
    timer.prev_ = nullptr;
    timer.next_ = l.heads[slot];
    if (timer.next_ != nullptr) timer.next_->prev_ = &timer;
    l.heads[slot] = &timer;
    l.occupied |= std::uint64_t{1} << slot;
    ++linked_;
}

std::optional<Instant> TimerWheel::next_wakeup() const {
    if (linked_ == 0) return std::nullopt;
    for (unsigned level = 0; level < kLevels; ++level) {
        const std::uint64_t span_bits = std::uint64_t{level} * kSlotBits;
        const std::uint64_t base = current_ >> span_bits;
        const auto slot = static_cast<unsigned>(base) & (kSlots - 1);
        // Slots of this level strictly after the current one hold everything of the current rotation; the top level wraps.
        const std::uint64_t ahead = slot == kSlots - 1 ? 0 : levels_[level].occupied >> (slot + 1);
        if (ahead != 0) {
            const std::uint64_t steps = static_cast<std::uint64_t>(std::countr_zero(ahead)) + 1;
            return start_ + kTick * static_cast<std::int64_t>((base + steps) << span_bits);
        }
        if (level == kLevels - 1 && levels_[level].occupied != 0) {
            const std::uint64_t steps =
                kSlots - slot + static_cast<std::uint64_t>(std::countr_zero(levels_[level].occupied));
            return start_ + kTick * static_cast<std::int64_t>((base + steps) << span_bits);
        }
    }
    return std::nullopt;
}

void TimerWheel::cascade(unsigned level) {
    const unsigned slot = static_cast<unsigned>(current_ >> (level * kSlotBits)) & (kSlots - 1);
    while (Timer* timer = levels_[level].heads[slot]) {
        timer->unlink();
        if (timer->deadline_ == Instant::max()) continue;
        link(*timer, std::max(tick_not_before(timer->deadline_), current_));
    }
}

void TimerWheel::fire_current(Instant now) {
    const unsigned slot = static_cast<unsigned>(current_) & (kSlots - 1);
    // Always the head of what is left: a callback may destroy or move any other timer.
    while (Timer* timer = levels_[0].heads[slot]) {
        timer->unlink();
        if (timer->deadline_ == Instant::max()) continue;
        if (timer->deadline_ > now) {
            place(*timer);
            continue;
        }
        timer->deadline_ = Instant::max();
        timer->on_timeout(now);
    }
}

void TimerWheel::advance(Instant now) {
    const std::uint64_t target = tick_of(now);
    while (current_ < target) {
        const auto next = next_wakeup();
        if (!next || tick_of(*next) > target) {
            current_ = target;  // no slot that anybody occupies begins before then
            return;
        }
        current_ = tick_of(*next);
        // From the top down: a slot whose span begins at this tick spreads into the levels below.
        for (unsigned level = kLevels - 1; level > 0; --level) {
            const std::uint64_t mask = (std::uint64_t{1} << (level * kSlotBits)) - 1;
            if ((current_ & mask) == 0) cascade(level);
        }
        fire_current(now);
    }
}

}  // namespace outrider
