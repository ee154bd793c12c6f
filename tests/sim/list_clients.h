// Clients that append to lists and read them (append_lists.h): consensus alone, as fast as it can be simulated. Each has one
// operation at a time, at any node, and repeats what is not answered.
#pragma once

#include <vector>

#include "tests/sim/append_lists.h"
#include "tests/sim/application.h"

namespace outrider::sim {

struct Profile;

class ListClients : public Application {
  public:
    explicit ListClients(const Profile& profile);

    void begin(Cluster& cluster) override;
    std::unique_ptr<raft::StateMachine> machine(std::uint32_t) override { return AppendLists::machine(); }
    void crashed(std::uint32_t) override {}
    void timer(const Timer& timer) override;
    void applied(std::uint32_t node, const raft::Entry& entry, const std::string& result) override;
    void read(std::uint32_t node, std::uint64_t context) override;
    void read_refused(std::uint32_t node, std::uint64_t context) override;
    void settled(std::uint32_t) override {}
    raft::Command idle_command() const override;
    void healed() override {}
    bool idle() const override { return busy_ == 0; }
    std::string waiting_for() const override { return "an operation has not ended"; }
    const std::optional<std::string>& violation() const override { return lists_.violation(); }
    std::uint64_t operations() const override { return operations_; }

  private:
    enum TimerKind : std::uint16_t { kTurn, kTimeout };
    struct Client {
        bool busy = false;
        AppendLists::Operation operation;
        std::uint64_t sequence = 0;
        std::uint64_t attempt = 0;  // unique among all clients; also the context of a read
        std::uint32_t node = 0;     // asked in this attempt
    };
    void turn(std::uint32_t client);
    void ask(std::uint32_t client);
    void ask_again(std::uint32_t client, std::optional<std::uint32_t> hint);
    void finish(std::uint32_t client, const std::string& result);

    Cluster* cluster_ = nullptr;
    AppendLists lists_;
    std::vector<Client> clients_;
    std::uint64_t attempts_ = 0;
    std::uint64_t busy_ = 0;
    std::uint64_t operations_ = 0;
};

}  // namespace outrider::sim
