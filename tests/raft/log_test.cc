// The log beside a plain list of entries: cold or warm, an entry is what was appended.
#include "control/raft/log.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace outrider::raft {
namespace {

bool same(const Entry& a, const Entry& b) {
    const auto data = [](const Entry& e) {
        return e.command.data == nullptr ? std::string("-") : *e.command.data;
    };
    return a.term == b.term && a.index == b.index && a.type == b.type &&
           a.command.client == b.command.client && a.command.sequence == b.command.sequence &&
           data(a) == data(b) && a.configuration == b.configuration;
}

class LogProperty : public ::testing::TestWithParam<std::uint64_t> {
  protected:
    Entry next() {
        Entry entry;
        term += random.below(20) == 0 ? 1 : 0;
        entry.term = {term};
        entry.index = log.last_index() + 1;
        const std::uint64_t kind = random.below(20);
        if (kind == 0) return entry;
        if (kind == 1) {
            entry.type = EntryType::kConfiguration;
            auto made = std::make_shared<Configuration>(*configuration);
            made->members[0].address = std::to_string(entry.index.value);
            entry.configuration = std::move(made);
            return entry;
        }
        entry.type = EntryType::kCommand;
        const bool large = random.below(100) == 0;
        entry.command = {random.below(9), random.below(9),
                         std::make_shared<const std::string>(random.below(large ? 400'000 : 200), 'a')};
        return entry;
    }
    std::vector<Entry>::iterator place(LogIndex index) {
        return model.begin() + static_cast<std::ptrdiff_t>(index.value - log.base_index().value - 1);
    }

    Random random{GetParam()};
    std::uint64_t term = 1;
    ConfigurationRef configuration =
        std::make_shared<Configuration>(Configuration{{Member{.id = {1}, .voter = true}}});
    Log log{SnapshotMeta{{}, {}, configuration}, {}, heap_memory(), {.entries = 20, .bytes = 10'000}};
    std::vector<Entry> model;
    LogIndex applied;
    std::uint64_t writes = 0;
};

TEST_P(LogProperty, IsAList) {
    for (int i = 0; i < 3000; ++i) {
        SCOPED_TRACE("seed " + std::to_string(GetParam()) + ", step " + std::to_string(i));
        const std::uint64_t what = random.below(100);
        if (what < 80) {
            model.push_back(next());
            log.append(model.back());
        } else if (what < 85) {
            // Only what is not applied may go; but a log that is told otherwise does as it is told.
            const LogIndex from =
                random.below(10) == 0 ? log.base_index() : std::max(applied, log.base_index());
            const LogIndex last = from + random.below(log.last_index().value - from.value + 1);
            model.erase(place(last + 1), model.end());
            log.truncate_after(last);
            applied = std::min(applied, last);
            term = std::max(term, log.last_term().value);
        } else if (what < 97) {
            log.written({++writes});
            log.persisted({writes});
            applied = std::max(applied, log.base_index());
            applied = applied + random.below(log.last_index().value - applied.value + 1);
            log.settle(applied);
        } else if (what < 99) {
            const LogIndex snapshot = std::max(log.snapshot().index, std::min(applied, log.durable_index()));
            if (snapshot < log.base_index() || snapshot > log.durable_index()) continue;
            const LogIndex kept =
                log.base_index() + 1 + random.below(snapshot.value - log.base_index().value + 1);
            model.erase(model.begin(), place(kept));
            log.compact(snapshot, kept);
        } else if (random.below(4) == 0) {
            term += 1;
            log.reset({log.last_index() + random.below(5), {term}, configuration});
            model.clear();
            applied = log.base_index();
        }
        ASSERT_EQ(log.last_index().value - log.base_index().value, model.size());
        for (int look = 0; look < 3 && !model.empty(); ++look) {
            const LogIndex index = log.first_index() + random.below(model.size());
            ASSERT_TRUE(same(log.at(index), *place(index)));
            ASSERT_EQ(log.term(index), place(index)->term);
            ASSERT_GE(log.bytes(index),
                      place(index)->command.data == nullptr ? 0 : place(index)->command.data->size());
            const auto batch = log.batch(index, 7, 1000);
            ASSERT_FALSE(batch.empty());
            for (const Entry& entry : batch)
                ASSERT_TRUE(same(entry, *place(entry.index)));
        }
        if (!model.empty()) {
            ASSERT_EQ(log.last_term(), model.back().term);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, LogProperty, ::testing::Range<std::uint64_t>(1, 11));

// As a file on a broken disk gives it back.
class Broken final : public ColdMemory {
  public:
    std::span<char> take(std::size_t bytes) override { return heap_memory()->take(bytes); }
    void give_back(std::span<char> block) override { heap_memory()->give_back(block); }
    void cool(std::span<char> block) override { block[200] = '!'; }
};

TEST(Log, AnOldEntryThatIsNotWhatItWasIsNotUsed) {
    const auto configuration =
        std::make_shared<Configuration>(Configuration{{Member{.id = {1}, .voter = true}}});
    Log log{SnapshotMeta{{}, {}, configuration}, {}, std::make_shared<Broken>(), {.entries = 1, .bytes = 1}};
    for (std::uint64_t i = 1; i <= 3000; ++i) {
        log.append(
            {{1}, {i}, EntryType::kCommand, {1, i, std::make_shared<const std::string>(100, 'a')}, nullptr});
    }
    log.settle({2999});
    EXPECT_DEATH(log.batch({1}, 3, 1 << 20), "is the disk of the data directory broken");
    EXPECT_EQ(log.at({2500}).command.sequence, 2500U);
}

}  // namespace
}  // namespace outrider::raft
