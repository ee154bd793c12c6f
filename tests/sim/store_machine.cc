#include "tests/sim/store_machine.h"

#include <utility>

#include "control/api/command.h"
#include "control/store/snapshot.h"

namespace outrider::sim {

StoreMachine::StoreMachine(std::uint32_t node, Chronicle& chronicle, store::WatchHub::Options options)
    : node_(node), chronicle_(chronicle), hub_(options) {}

std::string StoreMachine::apply(const raft::Entry& entry) {
    auto command = api::decode_command(*entry.command.data);
    if (!command.ok()) {
        chronicle_.broken("an entry is no command: " + command.error());
        return {};
    }
    command_ = std::move(*command);
    store::Store::Applied applied = store_->apply(entry.index.value, command_);
    hub_.applied(applied.events);
    chronicle_.applied(node_, entry.index.value, command_, applied, *store_);
    response_ = std::move(applied.response);
    repeated_ = applied.repeated;
    return {};
}

std::string StoreMachine::snapshot() const {
    store::SnapshotWriter writer(*store_);
    std::string bytes;
    while (writer.next(bytes)) {
    }
    return bytes;
}

void StoreMachine::restore(std::string_view snapshot) {
    store::SnapshotReader reader;
    if (const auto added = reader.add(snapshot); !added.ok()) {
        chronicle_.broken("a snapshot is refused: " + added.error());
        return;
    }
    auto restored = reader.finish();
    if (!restored.ok()) {
        chronicle_.broken("a snapshot is refused: " + restored.error());
        return;
    }
    const store::Revision before = store_->revision();
    store_ = std::move(*restored);
    hub_.restored(before, *store_);
    if (this->snapshot() != snapshot) chronicle_.broken("a restored store has another snapshot");
    chronicle_.restored(node_, *store_);
}

}  // namespace outrider::sim
