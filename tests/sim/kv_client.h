// A client that puts, deletes, compares and swaps, reads and compacts: a few keys, so that clients meet.
#pragma once

#include "tests/sim/caller.h"

namespace outrider::sim {

class KeySpace;

class KvClient : public Caller {
  public:
    explicit KvClient(KeySpace& space) : space_(space) {}

    void begin(std::uint32_t id) override;
    void turn(std::uint64_t what) override;
    void answered(const Request& request, const Answer& answer) override;

    static constexpr std::uint64_t kKeys = 6;
    static std::string key(std::uint64_t n) { return "k/" + std::string(1, static_cast<char>('a' + n)); }
    static store::KeyRange prefix() { return {"k/", "k0"}; }

  private:
    Request draw();
    Request draw_read();
    store::PutRequest draw_put();
    store::KeyRange draw_range();
    store::TxnRequest draw_swap();
    store::TxnRequest draw_batch();
    store::CompactRequest draw_compaction();
    std::string value();

    KeySpace& space_;
    std::uint32_t id_ = 0;
    std::uint64_t values_ = 0;
    store::Revision floor_;  // known when the request under way began
};

}  // namespace outrider::sim
