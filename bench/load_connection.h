// One client connection of the load generator: sends prepared requests, finds the ends of the
// answers.
//
// Invariants:
//   * answers are matched to requests in order (RFC 9112 section 9.3.2)
//   * it never decides what to send: completed answers are handed out, the caller sends the next
//   request
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "bench/framing.h"
#include "bench/net.h"

namespace outrider::bench {

struct Sent {
    std::uint64_t scheduled_ns = 0;  // when it should have left; the same as sent_ns in a closed loop
    std::uint64_t sent_ns = 0;
    bool slow = false;  // asked for the slow path
};

struct Completed {
    Sent request;
    std::uint64_t answered_ns = 0;
    int status = 0;
    bool replayed = false;  // a recorded answer, given again
};

class LoadConnection {
  public:
    // False: refused.
    bool open(std::uint16_t port, Epoll& epoll);
    bool is_open() const { return socket_.open(); }
    // Forgets everything outstanding.
    void close();

    std::size_t outstanding() const { return outstanding_.size(); }
    const std::deque<Sent>& waiting() const { return outstanding_; }

    // `request` must stay where it is until it was sent. Errors show at the next on_event().
    void send(const std::string& request, const Sent& about);
    // The same for a request that need not stay.
    void send_copy(std::string_view request, const Sent& about);
    // Bytes that are no whole request (dripping); nothing is outstanding because of them.
    void send_part(std::string_view bytes);

    // Reads and writes what can be; appends the answers that came. False: closed by the peer (by
    // its Connection: close as well) or broken; the caller closes it.
    bool on_event(std::uint32_t events, std::vector<Completed>& completed);

    std::uint64_t bytes_received() const { return bytes_received_; }

  private:
    bool flush();
    bool take(std::string_view bytes, std::uint64_t now, std::vector<Completed>& completed);
    bool take_head(std::string_view head);
    void complete(std::uint64_t now, std::vector<Completed>& completed);

    Socket socket_;
    std::deque<std::string_view> unsent_;
    std::deque<std::string> copies_;  // what unsent_ refers to, if it would not stay
    std::deque<Sent> outstanding_;
    std::string head_;  // part of a head
    Body body_;
    bool in_body_ = false;
    bool last_ = false;
    bool broken_ = false;
    int status_ = 0;
    bool replayed_ = false;
    std::uint64_t bytes_received_ = 0;
};

}  // namespace outrider::bench
