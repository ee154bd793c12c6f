#include "base/uv/poll.h"

namespace outrider::uv {

// Lives until libuv has let go of it.
struct Poll::Handle {
    uv_poll_t poll{};
    Loop* loop = nullptr;
    Handler* handler = nullptr;  // null: the Poll is gone
    int watched = 0;

    static void on_ready(uv_poll_t* poll, int status, int events) {
        auto* const self = static_cast<Handle*>(poll->data);
        const Loop::Event event(*self->loop);
        if (status < 0) {
            // libuv stops the handle on POLLERR and reports EBADF, whatever the socket's error is.
            self->watched = 0;
            events = UV_READABLE | UV_WRITABLE;
        }
        // The handle is freed in a later turn, also when a handler destroys the Poll.
        if ((events & (UV_READABLE | UV_DISCONNECT)) != 0 && self->handler != nullptr)
            self->handler->on_readable();
        if ((events & UV_WRITABLE) != 0 && self->handler != nullptr) self->handler->on_writable();
    }
};

Result<std::unique_ptr<Poll>> Poll::open(Loop& loop, int fd, Handler& handler) {
    auto* const handle = new Handle;
    if (const int error = uv_poll_init(loop.raw(), &handle->poll, fd); error != 0) {
        delete handle;
        return Error{"cannot watch a socket: " + error_text(error)};
    }
    handle->poll.data = handle;
    handle->loop = &loop;
    handle->handler = &handler;
    return std::unique_ptr<Poll>(new Poll(handle));
}

Poll::~Poll() {
    handle_->handler = nullptr;
    uv_poll_stop(&handle_->poll);
    uv_close(reinterpret_cast<uv_handle_t*>(&handle_->poll),
             [](uv_handle_t* handle) { delete static_cast<Handle*>(handle->data); });
}

void Poll::watch(bool readable, bool writable) {
    const int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (events == handle_->watched) return;
    handle_->watched = events;
    if (events == 0) {
        uv_poll_stop(&handle_->poll);
    } else {
        uv_poll_start(&handle_->poll, events, &Handle::on_ready);
    }
}

}  // namespace outrider::uv
