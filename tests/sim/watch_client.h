// A client that watches: from a revision on, through any node, reconnecting where it left off, reading anew when compaction has
// overtaken it, as control/agent's coordination client does. Everything it gets is held against the Chronicle: each change of
// its range that it wants, once, in order.
#pragma once

#include "control/store/watch_hub.h"
#include "tests/sim/caller.h"

namespace outrider::sim {

class KeySpace;

class WatchClient : public Caller {
  public:
    explicit WatchClient(KeySpace& space) : space_(space) {}

    void begin(std::uint32_t id) override;
    void turn(std::uint64_t what) override;
    void answered(const Request& request, const Answer& answer) override;
    void crashed(std::uint32_t node) override;
    void healed() override;
    bool idle() const override;

    bool takes_more() const { return !slow_; }
    void receive(const store::WatchBatch& batch, const store::Store& store);

  private:
    enum Turn : std::uint64_t { kOpen, kBreak, kResume, kAskProgress };

    void open();
    void read_anew();
    void disconnect();
    void open_soon();
    bool wants(const store::KeyValue& kv) const;
    // The place of the next change that is to come, from `place` on.
    std::size_t next_wanted(std::size_t place) const;
    void take(const store::WatchBatch& batch, const store::Store& store);
    void check_event(const store::WatchBatch::Event& event, const store::Store& store);
    void skip_to(store::Revision next);
    void broken(const std::string& what);

    KeySpace& space_;
    std::uint32_t id_ = 0;
    store::WatchRequest request_;
    bool started_ = false;   // next_ is known
    bool gone_ = false;      // compaction has overtaken it: it reads anew
    store::Revision floor_;  // known when it began to
    store::Revision start_;  // of the present stream
    store::Revision next_;   // all before it has been received, or was not asked for
    std::size_t place_ =
        0;  // in the chronicle: all before it has been received, the last batch's fragments too
    std::uint32_t node_ = 0;  // 0: not connected
    store::WatchId stream_;
    bool slow_ = false;
    std::uint64_t resumes_ = 0;
};

}  // namespace outrider::sim
