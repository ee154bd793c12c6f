#include "base/uv/loop.h"

#include <ctime>

#include "base/check.h"
#include "base/uv/tcp_stream.h"

namespace outrider::uv {
namespace {

constexpr int kTurnMemory = 8;

std::int64_t clock_nanos(clockid_t clock) {
    timespec ts{};
    ::clock_gettime(clock, &ts);
    return static_cast<std::int64_t>(ts.tv_sec) * 1'000'000'000 + ts.tv_nsec;
}

}  // namespace

Instant read_clock() {
    return Instant(Duration(clock_nanos(CLOCK_MONOTONIC)));
}

WallTime read_wall_clock() {
    return {clock_nanos(CLOCK_REALTIME) / 1000};
}

std::string error_text(int uv_error) {
    char buffer[128];
    return uv_strerror_r(uv_error, buffer, sizeof buffer);
}

std::string end_text(int uv_error) {
    if (uv_error == 0 || uv_error == UV_EPIPE || uv_error == UV_ECONNRESET) return "it closed the connection";
    return error_text(uv_error);
}

Loop::Loop() : timers_(read_clock()), read_buffer_(std::make_unique_for_overwrite<char[]>(kReadBuffer)) {
    batch_.text = std::make_unique_for_overwrite<char[]>(kBatchText);
    require(uv_loop_init(&loop_) == 0, "an event loop can be made");
    loop_.data = this;
    uv_timer_init(&loop_, &timer_);
    uv_prepare_init(&loop_, &prepare_);
    uv_check_init(&loop_, &check_);
    uv_idle_init(&loop_, &polling_);
    require(uv_async_init(&loop_, &async_,
                          [](uv_async_t* handle) { static_cast<Loop*>(handle->data)->run_tasks(); }) == 0,
            "an async handle can be made");
    timer_.data = prepare_.data = check_.data = async_.data = this;
    uv_prepare_start(&prepare_, [](uv_prepare_t* handle) {
        auto& loop = *static_cast<Loop*>(handle->data);
        if (!loop.turn_ends_.empty()) loop.run_turn_ends();
        if (loop.now_valid_)
            loop.turn_length_ += (read_clock() - loop.now_ - loop.turn_length_) / kTurnMemory;
        loop.arm_timer();
        if (loop.spin_.on()) loop.sleep_or_poll();
        ++loop.turn_;
        loop.now_valid_ = false;  // the poll that follows may sleep
    });
    uv_check_start(&check_, [](uv_check_t* handle) {
        auto& loop = *static_cast<Loop*>(handle->data);
        if (loop.turn_end_) loop.turn_end_(loop.now());
    });
}

Loop::~Loop() {
    {
        // Whoever posted may be gone, and so may what the tasks would touch.
        const std::lock_guard lock(tasks_mutex_);
        tasks_.clear();
    }
    for (uv_handle_t* handle :
         {reinterpret_cast<uv_handle_t*>(&timer_), reinterpret_cast<uv_handle_t*>(&prepare_),
          reinterpret_cast<uv_handle_t*>(&check_), reinterpret_cast<uv_handle_t*>(&polling_),
          reinterpret_cast<uv_handle_t*>(&async_)}) {
        uv_close(handle, nullptr);
    }
    uv_run(&loop_, UV_RUN_DEFAULT);
    require(uv_loop_close(&loop_) == 0, "every handle is closed before its loop");
}

void Loop::run() {
    while (!stopping_.load(std::memory_order_acquire))
        uv_run(&loop_, UV_RUN_DEFAULT);
}

void Loop::stop() {
    post([this] {
        stopping_.store(true, std::memory_order_release);
        uv_stop(&loop_);
    });
}

void Loop::refresh_now() {
    now_ = read_clock();
    // The wall clock is only for logs and dates: its distance from the monotonic one is looked up ten times a second.
    if (now_ - wall_checked_ > std::chrono::milliseconds(100)) {
        wall_checked_ = now_;
        wall_offset_nanos_ = clock_nanos(CLOCK_REALTIME) - now_.time_since_epoch().count();
    }
    wall_.unix_micros = (now_.time_since_epoch().count() + wall_offset_nanos_) / 1000;
    now_valid_ = true;
}

void Loop::arm_timer() {
    const auto wake = timers_.next_wakeup();
    if (wake == armed_for_) return;
    armed_for_ = wake;
    if (!wake) {
        uv_timer_stop(&timer_);
        return;
    }
    now_valid_ = false;
    const Duration wait = *wake - now();
    // Rounded up, and against the time that libuv holds to be now.
    const auto millis =
        wait <= Duration(0) ? 0 : static_cast<std::uint64_t>((wait.count() + 999'999) / 1'000'000);
    uv_update_time(&loop_);
    uv_timer_start(
        &timer_,
        [](uv_timer_t* handle) {
            auto& loop = *static_cast<Loop*>(handle->data);
            loop.armed_for_.reset();
            loop.now_valid_ = false;
            const Event event(loop);
            loop.timers_.advance(loop.now());
        },
        millis, 0);
}

void Loop::spin(Duration most) {
    spin_.set_most(most);
    if (!spin_.on()) uv_idle_stop(&polling_);
}

// Before the poll. While an idle handle is active libuv polls with a timeout of zero.
void Loop::sleep_or_poll() {
    now_valid_ = false;
    const bool polls = spin_.polls(now(), since_poll_);
    since_poll_.events = since_poll_.answered = false;
    if (polls) {
        uv_idle_start(&polling_, [](uv_idle_t*) {});
    } else {
        uv_idle_stop(&polling_);
    }
}

class Loop::OneShot final : public Timer {
  public:
    OneShot(Loop& loop, std::function<void()> f) : loop_(loop), f_(std::move(f)) {}

  private:
    void on_timeout(Instant) override {
        const auto self = std::move(loop_.one_shots_.at(this));
        loop_.one_shots_.erase(this);
        f_();
    }
    Loop& loop_;
    std::function<void()> f_;
};

void Loop::after(Duration delay, std::function<void()> f) {
    auto timer = std::make_unique<OneShot>(*this, std::move(f));
    schedule(*timer, delay);
    one_shots_.emplace(timer.get(), std::move(timer));
}

void Loop::post(std::function<void()> task) {
    {
        const std::lock_guard lock(tasks_mutex_);
        tasks_.push_back(std::move(task));
    }
    uv_async_send(&async_);
}

void Loop::run_tasks() {
    const Event event(*this);
    {
        const std::lock_guard lock(tasks_mutex_);
        running_tasks_.swap(tasks_);
    }
    for (auto& task : running_tasks_)
        task();
    running_tasks_.clear();
}

TurnEnd::~TurnEnd() {
    if (added_to_ == nullptr) return;
    for (TurnEnd*& entry : added_to_->turn_ends_) {
        if (entry == this) entry = nullptr;
    }
}

void Loop::add_turn_end(TurnEnd& hook) {
    if (hook.added_to_ != nullptr) return;
    hook.added_to_ = this;
    turn_ends_.push_back(&hook);
}

// In the prepare phase, not the check phase: timers fire in between, and what they collected must not wait for the poll.
void Loop::run_turn_ends() {
    const Event event(*this);
    for (std::size_t i = 0; i < turn_ends_.size(); ++i) {  // a hook may add others
        TurnEnd* const hook = turn_ends_[i];
        if (hook == nullptr) continue;
        turn_ends_[i] = nullptr;
        hook->added_to_ = nullptr;
        hook->on_turn_end();
    }
    turn_ends_.clear();
}

void Loop::flush_batch() {
    TcpStream* owner = batch_.owner;
    if (owner == nullptr) return;
    batch_.owner = nullptr;
    owner->send_batch({batch_.pieces.data(), batch_.piece_count}, batch_.bytes);
    batch_.piece_count = 0;
    batch_.bytes = 0;
    batch_.text_used = 0;
    if (!batch_.large.empty()) batch_.large.clear();
}

void Loop::finish_event() {
    since_poll_.events = true;
    flush_batch();
    // What a notified stream does may block or break others, or write.
    for (std::size_t i = 0; i < to_notify_.size(); ++i) {
        TcpStream* stream = to_notify_[i];
        if (stream == nullptr) continue;
        stream->notify_pending_ = false;
        to_notify_[i] = nullptr;
        stream->deliver_notices();
        flush_batch();
    }
    to_notify_.clear();
}

void Loop::notify_later(TcpStream& stream) {
    if (stream.notify_pending_) return;
    stream.notify_pending_ = true;
    to_notify_.push_back(&stream);
}

void Loop::forget(TcpStream& stream) {
    if (batch_.owner == &stream) {
        batch_.owner = nullptr;
        batch_.piece_count = 0;
        batch_.bytes = 0;
        batch_.text_used = 0;
        batch_.large.clear();
    }
    if (!stream.notify_pending_) return;
    stream.notify_pending_ = false;
    for (TcpStream*& entry : to_notify_) {
        if (entry == &stream) entry = nullptr;
    }
}

}  // namespace outrider::uv
