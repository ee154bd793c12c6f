// Tells when a socket can be read or written, for a library that reads and writes its sockets itself.
//
// The socket stays its owner's, who closes it after this object is gone. All on the loop's thread; callbacks arrive inside a
// Loop::Event. The handler may destroy the Poll from within a callback.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/uv/loop.h"

namespace outrider::uv {

class Poll {
  public:
    class Handler {
      public:
        virtual void on_readable() = 0;
        virtual void on_writable() = 0;

      protected:
        ~Handler() = default;
    };

    // Watches nothing yet.
    static Result<std::unique_ptr<Poll>> open(Loop& loop, int fd, Handler& handler);
    ~Poll();
    Poll(const Poll&) = delete;
    Poll& operator=(const Poll&) = delete;

    // Level-triggered. An error or a hang-up of the socket counts as both, once, so that whoever reads or writes learns of it;
    // nothing is watched after it until the next call. A system call at the end of the turn, if anything changed.
    void watch(bool readable, bool writable);

  private:
    struct Handle;
    explicit Poll(Handle* handle) : handle_(handle) {}

    Handle* handle_;
};

}  // namespace outrider::uv
