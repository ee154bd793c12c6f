// A client that wants to hold a guarded key under a lease, as a leader of a service does: it gets a lease, puts the key when
// nobody has it, keeps the lease alive, lets it go, or falls silent.
//
// It counts its lease from before it asked, on its own clock, for ttl * (1 - u) / (1 + u): its clock may be slow and the quorum
// leader's fast, by u each. While it counts on the lease nobody else may get the key.
#pragma once

#include "tests/sim/key_space.h"

namespace outrider::sim {

class LeaseClient : public Caller {
  public:
    explicit LeaseClient(KeySpace& space) : space_(space) {}

    static constexpr const char* kGuarded = "guarded";

    void begin(std::uint32_t id) override;
    void turn(std::uint64_t what) override;
    void answered(const Request& request, const Answer& answer) override;
    std::uint32_t home() const override { return space_.harming() ? home_ : 0; }

    bool holds() const;
    std::string name() const { return "holder " + std::to_string(id_); }

  private:
    enum class Doing : std::uint8_t { kNothing, kGranting, kAcquiring, kKeepingAlive, kRevoking, kReading };

    void grant();
    void acquire();
    void keep_alive();
    void revoke();
    void read();
    void extend(Instant asked, std::int64_t ttl_seconds);
    void drop() { lease_ = {}, owns_ = false; }
    void again(Duration low, Duration high);
    void granted(const Answer& answer);
    void acquired(const Answer& answer);

    KeySpace& space_;
    std::uint32_t id_ = 0;
    double rate_ = 1;  // of its clock
    std::uint32_t home_ = 0;
    bool own_id_ = false;  // it names its leases itself, always the same
    Doing doing_ = Doing::kNothing;
    store::LeaseId lease_;
    Instant valid_until_{};  // true time
    bool owns_ = false;      // it has put the key under this lease
    store::Revision floor_;
};

}  // namespace outrider::sim
