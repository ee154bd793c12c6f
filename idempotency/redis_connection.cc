#include "idempotency/redis_connection.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/uv/acceptor.h"
#include "base/uv/poll.h"

namespace outrider::idempotency {

namespace {
// Reads of one event: hiredis reads 16 KiB at a time, and poll is level-triggered.
constexpr int kReadsAnEvent = 16;
}  // namespace

std::string RedisAddress::text() const {
    const bool v6 = ip.find(':') != std::string::npos;
    return (v6 ? "[" + ip + "]" : ip) + ":" + std::to_string(port);
}

// Between hiredis and the loop. It outlives the connection while a function of hiredis that it called has not returned, and is
// let go when hiredis cleans up.
class RedisConnection::Bridge final : public uv::Poll::Handler, private uv::TurnEnd {
  public:
    Bridge(uv::Loop& loop, Owner& owner) : loop_(loop), owner_(&owner) {}

    static Result<std::shared_ptr<Bridge>> open(uv::Loop& loop, const RedisAddress& to, Owner& owner);

    void command(std::string_view formatted, redisCallbackFn* callback) {
        if (context_ == nullptr) return;  // on_broken() is on its way
        if (callback == &Bridge::on_reply) {
            ++unanswered_;
        } else {
            subscribed_ = true;  // from now on things come unasked
        }
        redisAsyncFormattedCommand(context_, callback, nullptr, formatted.data(), formatted.size());
    }
    void abandon() {
        owner_ = nullptr;
        if (context_ != nullptr) redisAsyncFree(context_);
    }
    void read_some();
    std::uint64_t writes() const { return writes_; }

    static void on_reply(redisAsyncContext* context, void* reply, void*);
    static void on_channel(redisAsyncContext* context, void* reply, void*);

  private:
    void attach(redisAsyncContext* context);
    void on_readable() override { read_some(); }
    void on_writable() override { write_now(); }
    void on_turn_end() override { write_now(); }
    void write_now();
    void wants_write();
    void watch() {
        if (poll_ != nullptr) poll_->watch(reading_, writing_);
    }
    bool nothing_unasked(bool in_buffer);
    void tell_connected();
    void broken(const std::string& why);
    void cleaned_up();

    static Bridge& of(void* data) { return *static_cast<Bridge*>(data); }

    uv::Loop& loop_;
    Owner* owner_;  // null: told, or gone
    redisAsyncContext* context_ = nullptr;
    std::unique_ptr<uv::Poll> poll_;
    std::shared_ptr<Bridge> self_;  // while hiredis holds a pointer to this
    bool reading_ = false;
    bool writing_ = false;
    bool in_write_ = false;
    bool connected_ = false;
    bool connected_told_ = false;
    bool subscribed_ = false;
    std::uint64_t unanswered_ = 0;
    std::uint64_t replies_ = 0;
    std::uint64_t writes_ = 0;
};

Result<std::shared_ptr<RedisConnection::Bridge>> RedisConnection::Bridge::open(uv::Loop& loop,
                                                                               const RedisAddress& to,
                                                                               Owner& owner) {
    redisAsyncContext* const context =
        redisAsyncConnect(to.ip.c_str(), to.port);  // a literal: no look-up that blocks
    if (context == nullptr) return Error{"out of memory"};
    const auto failed = [&](std::string why) {
        redisAsyncFree(context);
        return Error{std::move(why)};
    };
    if (context->err != 0) return failed(context->errstr);
    if (uv::is_held_back(context->c.fd)) return failed("no file descriptor is left");
    ::fcntl(context->c.fd, F_SETFD, FD_CLOEXEC);
    auto bridge = std::make_shared<Bridge>(loop, owner);
    auto poll = uv::Poll::open(loop, context->c.fd, *bridge);
    if (!poll) return failed(poll.error());
    bridge->poll_ = std::move(poll.value());
    bridge->self_ = bridge;
    bridge->attach(context);
    return bridge;
}

void RedisConnection::Bridge::attach(redisAsyncContext* context) {
    context_ = context;
    context->data = this;
    context->ev.data = this;
    context->ev.addRead = [](void* data) { of(data).reading_ = true, of(data).watch(); };
    context->ev.delRead = [](void* data) { of(data).reading_ = false, of(data).watch(); };
    context->ev.addWrite = [](void* data) { of(data).wants_write(); };
    context->ev.delWrite = [](void* data) { of(data).writing_ = false, of(data).watch(); };
    context->ev.cleanup = [](void* data) { of(data).cleaned_up(); };
    redisAsyncSetConnectCallback(context, [](const redisAsyncContext* done, int status) {
        // What follows waits until hiredis has returned: version 0.14 may not be called here.
        if (status == REDIS_OK && done->data != nullptr) of(done->data).connected_ = true;
    });
}

// Before the connection stands, writability is what tells that it does.
void RedisConnection::Bridge::wants_write() {
    if (connected_ && !in_write_) {
        if (!writing_) loop_.add_turn_end(*this);
        return;
    }
    writing_ = true;
    watch();
}

void RedisConnection::Bridge::write_now() {
    if (context_ == nullptr) return;
    const auto keep = self_;
    in_write_ = true;
    if (connected_) ++writes_;
    redisAsyncHandleWrite(context_);
    in_write_ = false;
    tell_connected();
}

void RedisConnection::Bridge::read_some() {
    const auto keep = self_;
    for (int i = 0; i < kReadsAnEvent && context_ != nullptr; ++i) {
        if (connected_ && unanswered_ == 0 && !subscribed_ && !nothing_unasked(false)) return;
        const std::uint64_t before = replies_;
        const std::size_t held = context_->c.reader->len;
        redisAsyncHandleRead(context_);
        tell_connected();
        if (context_ == nullptr) return;
        if (context_->c.reader->len > kReplyBytesMax) {
            broken("a reply of more than 32 MiB");
            return;
        }
        // What is read is a reply, or a part of one; neither: there was nothing more.
        if (replies_ == before && context_->c.reader->len == held) return;
        if (unanswered_ == 0) return;
    }
}

void RedisConnection::Bridge::tell_connected() {
    if (!connected_ || connected_told_ || owner_ == nullptr || context_ == nullptr) return;
    connected_told_ = true;
    redisEnableKeepAlive(&context_->c);
    owner_->on_connected();
}

// False, and the connection is over, when something arrived that nobody asked for and that is no error.
bool RedisConnection::Bridge::nothing_unasked(bool in_buffer) {
    const redisReader& reader = *context_->c.reader;
    char first = '-';
    if (reader.len > reader.pos) {
        first = reader.buf[reader.pos];
    } else if (!in_buffer && ::recv(context_->c.fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) != 1) {
        first = '-';  // nothing, or the end
    }
    if (first == '-') return true;
    broken("it says something that it was not asked");
    return false;
}

void RedisConnection::Bridge::on_reply(redisAsyncContext* context, void* reply, void*) {
    auto* const self = static_cast<Bridge*>(context->data);
    if (self == nullptr || reply == nullptr) return;  // broken: told once, for all
    --self->unanswered_;
    ++self->replies_;
    if (self->owner_ != nullptr) self->owner_->on_reply(*static_cast<const redisReply*>(reply));
    const bool open = self->owner_ != nullptr && self->context_ != nullptr;
    if (open && self->unanswered_ == 0 && !self->subscribed_) self->nothing_unasked(true);
}

void RedisConnection::Bridge::on_channel(redisAsyncContext* context, void* reply, void*) {
    auto* const self = static_cast<Bridge*>(context->data);
    if (self == nullptr || reply == nullptr || self->owner_ == nullptr) return;
    ++self->replies_;
    const auto& said = *static_cast<const redisReply*>(reply);
    if (said.type == REDIS_REPLY_ERROR) {
        self->broken(std::string(said.str, said.len));
        return;
    }
    const auto text = [&](std::size_t i) {
        if (said.type != REDIS_REPLY_ARRAY || said.elements <= i) return std::string_view();
        const redisReply& element = *said.element[i];
        return element.type == REDIS_REPLY_STRING ? std::string_view(element.str, element.len)
                                                  : std::string_view();
    };
    self->owner_->on_channel(text(0), text(1));
}

// Found out here, not by hiredis.
void RedisConnection::Bridge::broken(const std::string& why) {
    Owner* const owner = std::exchange(owner_, nullptr);
    redisAsyncFree(context_);  // from within a reply: when that returns
    if (owner != nullptr) owner->on_broken(why);
}

// The context is about to be freed.
void RedisConnection::Bridge::cleaned_up() {
    const auto keep = std::move(self_);
    const std::string why = context_->c.err != 0 ? context_->c.errstr : "the connection was closed";
    context_->data = nullptr;
    context_ = nullptr;
    poll_.reset();  // before hiredis closes the socket
    if (Owner* const owner = std::exchange(owner_, nullptr); owner != nullptr) owner->on_broken(why);
}

Result<std::unique_ptr<RedisConnection>> RedisConnection::open(uv::Loop& loop, const RedisAddress& to,
                                                               Owner& owner) {
    auto bridge = Bridge::open(loop, to, owner);
    if (!bridge) return Error{bridge.error()};
    return std::unique_ptr<RedisConnection>(new RedisConnection(std::move(bridge.value())));
}

RedisConnection::~RedisConnection() {
    bridge_->abandon();
}

void RedisConnection::command(std::string_view formatted) {
    bridge_->command(formatted, &Bridge::on_reply);
}

void RedisConnection::channel_command(std::string_view formatted) {
    bridge_->command(formatted, &Bridge::on_channel);
}

void RedisConnection::read_now() {
    bridge_->read_some();
}

std::uint64_t RedisConnection::writes() const {
    return bridge_->writes();
}

}  // namespace outrider::idempotency
