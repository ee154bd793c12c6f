// A client's request while the node works on it. The node calls exactly one of the answers, once, unless it was told to forget it.
#pragma once

#include <cstdint>

#include "control/api/errors.h"
#include "control/raft/effects.h"
#include "control/store/types.h"

namespace outrider::node {

class Request {
  public:
    Request() = default;
    virtual ~Request() = default;
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

    // Node::propose(): the command has been applied here.
    virtual void on_applied(const store::Response& response) = 0;
    // Node::read(): the store shows everything that was answered before the request began.
    virtual void on_readable() = 0;
    // Node::ask_lease(): as LeaseClock answers; -1: unknown or expired. The store is as readable as above.
    virtual void on_lease(std::int64_t seconds) = 0;
    // Node::change_members(): committed and applied here, or refused by consensus.
    virtual void on_members(raft::Refusal refusal) = 0;
    // Any of them: no answer can be had. A command may take effect nevertheless.
    virtual void on_refused(const api::Problem& problem) = 0;

    bool waiting() const { return sequence_ != 0; }

  private:
    friend class RequestTable;
    std::uint64_t sequence_ = 0;  // in the node's table, 0: not there
};

}  // namespace outrider::node
