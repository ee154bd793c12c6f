// One event loop: time, deadlines, tasks from other threads, the shared read buffer and the write batch.
//
// Everything of one loop runs on the thread that calls run(); only post() and stop() may be called from others.
//
// The write batch. Writes of one event (a read callback, a timer) are collected and leave in one system call
// when the event ends or when another stream writes: a head built here and a body still lying in the read
// buffer go out together without being copied. Every callback from libuv runs inside a Loop::Event; when it
// ends, the batch is flushed and the streams that were blocked or broken by it are told.
//
// Sleeping. A turn's poll sleeps until something happens. With spin() and while an answer is awaited, or behind one, it first
// polls without sleeping (base/spin_policy.h).
//
// Memory: the read buffer (128 KiB) and the batch's text (64 KiB) exist once a loop; idle connections hold neither.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <uv.h>

#include "base/spin_policy.h"
#include "base/time.h"
#include "base/timer_wheel.h"

namespace outrider::uv {

class Loop;
class TcpStream;

// Base of whatever has something to do at the end of a turn: Loop::add_turn_end().
class TurnEnd {
  public:
    TurnEnd() = default;
    TurnEnd(const TurnEnd&) = delete;
    TurnEnd& operator=(const TurnEnd&) = delete;
    virtual ~TurnEnd();  // it does not run any more

  protected:
    virtual void on_turn_end() = 0;

  private:
    friend class Loop;
    Loop* added_to_ = nullptr;
};

// The process's clock of MonotonicTimeline; the only place besides Loop that reads it.
Instant read_clock();
WallTime read_wall_clock();

class Loop {
  public:
    static constexpr std::size_t kReadBuffer = 128 * 1024;
    static constexpr std::size_t kBatchText = 64 * 1024;
    static constexpr std::size_t kBatchPieces = 64;

    Loop();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    uv_loop_t* raw() { return &loop_; }

    // Until stop(). Handles that are still open are closed by their owners before the Loop dies.
    void run();
    void stop();  // any thread

    // The time of this turn of the loop: read once, when first asked for.
    Instant now() {
        if (!now_valid_) refresh_now();
        return now_;
    }
    WallTime wall() {
        if (!now_valid_) refresh_now();
        return wall_;
    }

    // How long to poll before sleeping while an answer is awaited, or behind one; zero, the default: not at all.
    void spin(Duration most);
    // Each answer that somebody waits for on this loop, from its request to its end.
    void answer_awaited() { ++since_poll_.awaited; }
    void answer_ended() {
        --since_poll_.awaited;
        since_poll_.answered = true;
    }

    // Counts the turns. What is read in a turn was there when the turn's poll returned.
    std::uint64_t turn() const { return turn_; }
    // What a request waits for this loop itself: the time that turns with events took, from a poll's return to the next poll. A
    // mean over about the last eight.
    Duration turn_length() const { return turn_length_; }

    TimerWheel& timers() { return timers_; }
    void schedule(Timer& timer, Duration after) { timers_.schedule(timer, now() + after); }
    void cancel(Timer& timer) { timers_.cancel(timer); }

    // Runs `task` on the loop's thread. Any thread; tasks of one thread keep their order.
    void post(std::function<void()> task);

    // Runs once a turn after all events, for small housekeeping (log flushing). Must be cheap.
    void on_turn_end(std::function<void(Instant)> hook) { turn_end_ = std::move(hook); }

    // Runs `hook` once at the end of this turn, inside an Event: after everything that happened in it, timers too, and before
    // the loop may sleep. What many events of a turn collected leaves here in one system call. Adding a hook that is already
    // there changes nothing; a hook does not add itself while it runs.
    void add_turn_end(TurnEnd& hook);

    // Runs `f` after `delay` on this loop, once. For rare things; connections have their own Timer.
    void after(Duration delay, std::function<void()> f);

    // Sends what is batched now: before memory goes that write_stable() was given.
    void flush() { flush_batch(); }

    std::span<char> read_buffer() { return {read_buffer_.get(), kReadBuffer}; }

    // Scope of one event: the outermost one flushes at its end.
    class Event {
      public:
        explicit Event(Loop& loop) : loop_(loop) { ++loop_.event_depth_; }
        ~Event() {
            if (loop_.event_depth_ == 1) loop_.finish_event();
            --loop_.event_depth_;
        }
        Event(const Event&) = delete;
        Event& operator=(const Event&) = delete;

      private:
        Loop& loop_;
    };

  private:
    friend class TcpStream;
    friend class TurnEnd;
    class OneShot;

    struct Batch {
        TcpStream* owner = nullptr;
        std::array<uv_buf_t, kBatchPieces> pieces{};
        unsigned piece_count = 0;
        std::size_t bytes = 0;
        std::unique_ptr<char[]> text;
        std::size_t text_used = 0;
        std::vector<std::unique_ptr<char[]>> large;  // texts that do not fit
    };

    void refresh_now();
    void finish_event();
    void flush_batch();
    void notify_later(TcpStream& stream);
    void forget(TcpStream& stream);
    void run_tasks();
    void run_turn_ends();
    void arm_timer();
    void sleep_or_poll();

    uv_loop_t loop_{};
    uv_timer_t timer_{};
    uv_prepare_t prepare_{};
    uv_check_t check_{};
    uv_idle_t polling_{};  // while it is started, polls do not sleep
    uv_async_t async_{};
    std::optional<Instant> armed_for_;
    Instant now_{};
    WallTime wall_{};
    bool now_valid_ = false;
    Duration turn_length_{};
    std::uint64_t turn_ = 0;
    std::int64_t wall_offset_nanos_ = 0;
    Instant wall_checked_{};
    unsigned event_depth_ = 0;
    SpinPolicy spin_;
    SpinPolicy::Turn since_poll_;

    TimerWheel timers_;
    Batch batch_;
    std::vector<TcpStream*> to_notify_;
    std::unordered_map<Timer*, std::unique_ptr<Timer>> one_shots_;
    std::unique_ptr<char[]> read_buffer_;
    std::function<void(Instant)> turn_end_;
    std::vector<TurnEnd*> turn_ends_;  // null: gone meanwhile

    std::mutex tasks_mutex_;
    std::vector<std::function<void()>> tasks_;
    std::vector<std::function<void()>> running_tasks_;
    std::atomic<bool> stopping_{false};
};

// An operating-system error number as a short text ("connection refused").
std::string error_text(int uv_error);
// How a connection's end reads for `it`, the peer; 0 = its end was read. Met by a write, or with bytes left unread, the same end
// has another number: which one depends on who was quicker, and is no news.
std::string end_text(int uv_error);

}  // namespace outrider::uv
