// The storage on a disk in memory that loses, tears and fails (tests/wal/virtual_disk.h).
#include "control/node/storage.h"

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/node/backup.h"
#include "tests/wal/virtual_disk.h"

namespace outrider::node {
namespace {

using raft::Entry;
using raft::EntryType;
using raft::LogIndex;
using raft::WriteId;

raft::ConfigurationRef founders() {
    return std::make_shared<const raft::Configuration>(raft::Configuration{{{{1}, true, "a=h:1"}}});
}

Identity identity() {
    return {11, {1}, "a", "", founders()};
}

Entry entry(std::uint64_t index, std::uint64_t term, std::size_t bytes = 10) {
    Entry out;
    out.term = {term};
    out.index = {index};
    out.type = EntryType::kCommand;
    out.command = {7, index, std::make_shared<const std::string>(bytes, 'x')};
    return out;
}

// Stands for the loop: runs what the storage's threads post.
class Loop {
  public:
    void post(std::function<void()> task) {
        const std::lock_guard lock(mutex_);
        tasks_.push_back(std::move(task));
        wake_.notify_one();
    }
    void run_until(const std::function<bool()>& done) {
        while (!done()) {
            std::unique_lock lock(mutex_);
            ASSERT_TRUE(wake_.wait_for(lock, std::chrono::seconds(60), [this] { return !tasks_.empty(); }));
            const std::function<void()> task = std::move(tasks_.front());
            tasks_.pop_front();
            lock.unlock();
            task();
        }
    }

  private:
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> tasks_;
};

class StorageTest : public testing::Test, protected StorageHandler {
  protected:
    void open(std::uint64_t segment_bytes = 1 << 20) {
        auto opened = Storage::open(disk_, "data", segment_bytes);
        ASSERT_TRUE(opened.ok()) << opened.error();
        storage_ = std::move(*opened);
        if (!storage_->found().state.identity) {
            ASSERT_TRUE(storage_->begin(identity()).ok());
        }
        found_ = std::move(storage_->found());
        durable_ = {};
        write_ = {};
        log_id_ = storage_->log_id();
        storage_->start(*this, [this](std::function<void()> task) { loop_.post(std::move(task)); });
    }
    void close() { storage_.reset(); }

    WriteId write(raft::Effects effects) {
        effects.write = write_ = WriteId{write_.value + 1};
        storage_->write(effects);
        return write_;
    }
    WriteId append(std::uint64_t first, std::uint64_t last, std::uint64_t term, std::size_t bytes = 10) {
        raft::Effects effects;
        for (std::uint64_t i = first; i <= last; ++i)
            effects.append.push_back(entry(i, term, bytes));
        return write(std::move(effects));
    }
    void wait(WriteId id) {
        loop_.run_until([&] { return durable_ >= id || !failure_.empty(); });
    }
    std::vector<std::uint64_t> entries() const {
        std::vector<std::uint64_t> out;
        for (const Entry& one : found_.state.entries)
            out.push_back(one.index.value);
        return out;
    }
    // A store that has applied that many puts.
    static void fill(store::Store& store, std::uint64_t last) {
        for (std::uint64_t i = store.applied_index() + 1; i <= last; ++i) {
            store::Command command;
            command.request =
                store::PutRequest{"key" + std::to_string(i), std::string(1000, 'v'), {}, false, false, false};
            store.apply(i, command);
        }
    }

    // A snapshot's file, as another node of term 4 would send it.
    static std::string leaders_snapshot(store::Store& store, LogIndex index, std::uint64_t cluster) {
        wal::VirtualDisk disk{2};
        EXPECT_FALSE(disk.make_directory("x"));
        EXPECT_TRUE(write_snapshot_file(disk, "x", {cluster, {index, {4}, founders()}}, store).ok());
        return disk.read("x/" + snapshot_name(index));
    }

    void on_durable(WriteId last) override { durable_ = last; }
    void on_installed(const raft::SnapshotMeta& meta, std::unique_ptr<store::Store> store) override {
        installed_ = meta;
        installed_store_ = std::move(store);
    }
    void on_saved(const std::optional<raft::SnapshotMeta>& meta) override {
        saved_ = meta;
        ++saves_;
    }
    void on_storage_failed(const std::string& reason) override { failure_ = reason; }

    void keep(const KnownLogs& logs) {
        bool kept = false;
        storage_->keep_known_logs(logs, [&kept] { kept = true; });
        loop_.run_until([&] { return kept || !failure_.empty(); });
    }

    wal::VirtualDisk disk_{1};
    std::uint64_t log_id_ = 0;
    Loop loop_;
    std::unique_ptr<Storage> storage_;
    Storage::Found found_;
    WriteId write_;
    WriteId durable_;
    std::optional<raft::SnapshotMeta> installed_;
    std::unique_ptr<store::Store> installed_store_;
    std::optional<raft::SnapshotMeta> saved_;
    unsigned saves_ = 0;
    std::string failure_;
};

TEST_F(StorageTest, WhatIsDurableIsThereAfterAPowerLoss) {
    open();
    raft::Effects effects;
    effects.hard_state = raft::HardState{{3}, {1}};
    effects.append = {entry(1, 3), entry(2, 3)};
    wait(write(std::move(effects)));
    close();
    disk_.power_loss();
    open();
    EXPECT_EQ(found_.state.hard_state, (raft::HardState{{3}, {1}}));
    EXPECT_THAT(entries(), testing::ElementsAre(1, 2));
    EXPECT_EQ(*found_.state.entries[1].command.data, std::string(10, 'x'));
    EXPECT_EQ(found_.state.entries[1].command.client, 7U);
}

TEST_F(StorageTest, ATruncationHoldsAfterAPowerLoss) {
    open();
    append(1, 9, 1);
    raft::Effects effects;
    effects.truncate_after = LogIndex{4};
    effects.append = {entry(5, 2)};
    wait(write(std::move(effects)));
    close();
    disk_.power_loss();
    open();
    EXPECT_THAT(entries(), testing::ElementsAre(1, 2, 3, 4, 5));
    EXPECT_EQ(found_.state.entries.back().term, raft::Term{2});
}

TEST_F(StorageTest, AFailedSyncIsReportedOnceAndNothingIsDurableAfterIt) {
    open();
    wait(append(1, 1, 1));
    disk_.faults.sync_error = 1;
    append(2, 2, 1);
    loop_.run_until([&] { return !failure_.empty(); });
    EXPECT_THAT(failure_, testing::HasSubstr("sync"));
    EXPECT_EQ(durable_, WriteId{1});
    disk_.faults.sync_error = 0;
    append(3, 3, 1);
    close();
    EXPECT_EQ(durable_, WriteId{1});
}

TEST_F(StorageTest, AFullDiskEndsTheNode) {
    open();
    wait(append(1, 1, 1));
    disk_.capacity = disk_.used();
    append(2, 2, 1, 1 << 20);
    loop_.run_until([&] { return !failure_.empty(); });
    EXPECT_EQ(durable_, WriteId{1});
}

// What the log holds is there; the room that the attempt took is given back.
TEST_F(StorageTest, ASnapshotForWhichThereIsNoRoomIsGivenUpAndTheNodeGoesOn) {
    open();
    wait(append(1, 300, 1));
    store::Store store;
    fill(store, 300);
    const std::uint64_t before = disk_.used();
    disk_.capacity = before + 10'000;
    storage_->save(store, {{300}, {1}, founders()});
    loop_.run_until([&] { return saves_ == 1; });
    EXPECT_FALSE(saved_);
    EXPECT_EQ(disk_.used(), before);
    std::optional<std::string> problem;
    storage_->save_backup(store, {{300}, {1}, founders()},
                          [&](const std::shared_ptr<wal::File>& file, std::uint64_t, const std::string& why) {
                              EXPECT_EQ(file, nullptr);
                              problem = why;
                          });
    loop_.run_until([&] { return problem.has_value(); });
    EXPECT_THAT(*problem, testing::HasSubstr("cannot write data/backup.tmp: No space left on device"));
    EXPECT_EQ(disk_.used(), before);
    wait(append(301, 301, 1));
    disk_.capacity = UINT64_MAX;
    storage_->save(store, {{300}, {1}, founders()});
    loop_.run_until([&] { return saves_ == 2; });
    EXPECT_TRUE(saved_);
    EXPECT_EQ(failure_, "");
}

TEST_F(StorageTest, WhatAnInterruptedProcessLeftBehindIsDeletedAtTheNextStart) {
    open();
    close();
    for (const char* name : {"data/backup.tmp", "data/scratch.a1b2c3"})
        EXPECT_FALSE(disk_.open(name, wal::FileSystem::OpenMode::kCreate).error);
    open();
    close();
    std::vector<std::string> names;
    EXPECT_FALSE(disk_.list("data", names));
    EXPECT_THAT(names, testing::Each(testing::StartsWith("wal")));
}

TEST_F(StorageTest, ASecondProcessIsRefused) {
    open();
    const auto second = Storage::open(disk_, "data", 1 << 20);
    ASSERT_FALSE(second.ok());
    EXPECT_THAT(second.error(), testing::HasSubstr("in use"));
}

TEST_F(StorageTest, ASnapshotTakesThePlaceOfTheLogBeforeIt) {
    open(4096);
    store::Store store;
    wait(append(1, 200, 1, 500));
    const std::uint64_t before = disk_.used();
    fill(store, 150);
    storage_->save(store, {{150}, {1}, founders()});
    fill(store, 200);  // goes on meanwhile
    loop_.run_until([&] { return saves_ == 1; });
    ASSERT_TRUE(saved_);
    storage_->compact(*saved_, LogIndex{141});
    wait(append(201, 260, 1, 500));
    close();
    EXPECT_LT(disk_.used(), before + 60 * 600 + 200'000);
    disk_.power_loss();
    open(4096);
    EXPECT_EQ(found_.state.snapshot.index, LogIndex{150});
    EXPECT_EQ(found_.store->applied_index(), 150U);
    EXPECT_EQ(found_.store->revision().value, 151);
    EXPECT_EQ(entries().front(), 151U);
    EXPECT_EQ(entries().back(), 260U);
    EXPECT_EQ(found_.state.identity->cluster_id, 11U);
}

TEST_F(StorageTest, SegmentsBeforeASnapshotAreDeleted) {
    open(4096);
    store::Store store;
    std::uint64_t last = 0;
    for (int round = 0; round < 4; ++round) {
        wait(append(last + 1, last + 200, 1, 500));
        last += 200;
        fill(store, last);
        storage_->save(store, {{last}, {1}, founders()});
        const unsigned want = static_cast<unsigned>(round) + 1;
        loop_.run_until([&] { return saves_ == want; });
        storage_->compact(*saved_, LogIndex{last + 1});
    }
    wait(append(last + 1, last + 1, 1));
    std::size_t segments = 0;
    std::size_t snapshots = 0;
    close();
    for (const std::string& path : disk_.paths()) {
        if (path.ends_with(".wal")) ++segments;
        if (path.ends_with(".snap")) ++snapshots;
    }
    EXPECT_EQ(snapshots, 1U);
    EXPECT_LT(segments, 60U);  // all of it were 100 and more
    open(4096);
    EXPECT_THAT(entries(), testing::ElementsAre(last + 1));
}

TEST_F(StorageTest, ItsSizeOnTheDiskIsKnownAsTheLogGrowsAndIsCut) {
    open(4096);
    const auto on_disk = [this] {
        std::uint64_t sum = 0;
        for (const std::string& path : disk_.paths()) {
            if (path.ends_with(".wal")) sum += disk_.read(path).size();
        }
        return sum;
    };
    EXPECT_EQ(storage_->disk_bytes(), on_disk());
    for (std::uint64_t first = 1; first <= 200; first += 10)
        wait(append(first, first + 9, 1, 500));
    const std::uint64_t grown = storage_->disk_bytes();
    EXPECT_GT(grown, 100'000U);
    EXPECT_EQ(grown, on_disk());
    store::Store store;
    fill(store, 200);
    storage_->save(store, {{200}, {1}, founders()});
    loop_.run_until([&] { return saves_ == 1; });
    storage_->compact(*saved_, LogIndex{201});
    wait(append(201, 201, 1));
    EXPECT_LT(storage_->disk_bytes(), grown / 2);
    EXPECT_EQ(storage_->disk_bytes(), on_disk());
}

TEST_F(StorageTest, ALeadersSnapshotIsInstalledFromItsChunks) {
    store::Store theirs;
    fill(theirs, 500);
    const std::string bytes = leaders_snapshot(theirs, {500}, 11);

    open();
    append(1, 20, 1);
    const raft::SnapshotMeta meta{{500}, {4}, founders()};
    for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t size = std::min<std::size_t>(100'000, bytes.size() - at);
        raft::Effects effects;
        effects.chunk =
            raft::StoreChunk{meta, at, std::make_shared<const std::string>(bytes.substr(at, size))};
        at += size;
        if (at == bytes.size()) effects.install = meta;
        write(std::move(effects));
    }
    const WriteId last = append(501, 502, 4);
    wait(last);
    ASSERT_TRUE(installed_);
    EXPECT_EQ(installed_->index, LogIndex{500});
    EXPECT_EQ(installed_store_->hash(installed_store_->revision()), theirs.hash(theirs.revision()));

    raft::SnapshotChunk chunk;
    chunk.meta = meta;
    ASSERT_TRUE(storage_->read_chunk(chunk));
    EXPECT_EQ(bytes.substr(0, chunk.data->size()), *chunk.data);
    chunk.meta.index = {499};
    EXPECT_FALSE(storage_->read_chunk(chunk));
    close();
    disk_.power_loss();
    open();
    EXPECT_EQ(found_.state.snapshot.index, LogIndex{500});
    EXPECT_THAT(entries(), testing::ElementsAre(501, 502));
    EXPECT_EQ(found_.store->applied_index(), 500U);
}

TEST_F(StorageTest, AnotherClustersSnapshotIsNotInstalled) {
    store::Store theirs;
    fill(theirs, 5);
    open();
    const raft::SnapshotMeta meta{{5}, {4}, founders()};
    raft::Effects effects;
    effects.chunk =
        raft::StoreChunk{meta, 0, std::make_shared<const std::string>(leaders_snapshot(theirs, {5}, 12))};
    effects.install = meta;
    write(std::move(effects));
    loop_.run_until([&] { return !failure_.empty(); });
    EXPECT_FALSE(installed_);
}

// Any prefix of what happens when a leader's snapshot is installed, likewise.
TEST_F(StorageTest, SurvivesAPowerLossAtEveryStepOfAnInstall) {
    store::Store theirs;
    fill(theirs, 500);
    const std::string bytes = leaders_snapshot(theirs, {500}, 11);
    bool installed = false;
    for (std::uint64_t steps = 1; !installed; ++steps) {
        ASSERT_LT(steps, 60U);
        disk_ = wal::VirtualDisk{steps};
        failure_.clear();
        installed_.reset();
        open();
        wait(append(1, 20, 1));
        disk_.die_after(steps);
        const raft::SnapshotMeta meta{{500}, {4}, founders()};
        raft::Effects effects;
        effects.chunk = raft::StoreChunk{meta, 0, std::make_shared<const std::string>(bytes)};
        effects.install = meta;
        write(std::move(effects));
        loop_.run_until([&] { return installed_ || !failure_.empty(); });
        installed = installed_.has_value();
        close();
        disk_.die_after(UINT64_MAX);
        disk_.power_loss();
        open();
        const std::uint64_t begin = found_.state.snapshot.index.value;
        EXPECT_TRUE(begin == 500 || (begin == 0 && !installed)) << steps;
        EXPECT_EQ(entries().empty() ? begin : entries().back(), begin == 0 ? 20U : 500U) << steps;
        std::vector<std::string> names;
        ASSERT_FALSE(disk_.list("data", names));
        for (const std::string& name : names)
            EXPECT_FALSE(name.ends_with(".installing")) << name;
        close();
    }
}

// An install was broken off before the log named its snapshot, and so is the start that clears it away, at any step.
TEST_F(StorageTest, SurvivesAPowerLossAtEveryStepOfClearingABrokenInstallAway) {
    store::Store theirs;
    fill(theirs, 500);
    const std::string bytes = leaders_snapshot(theirs, {500}, 11);
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        bool cleared = false;
        for (std::uint64_t steps = 0; !cleared; ++steps) {
            ASSERT_LT(steps, 60U);
            disk_ = wal::VirtualDisk{seed};
            failure_.clear();
            open();
            wait(append(1, 20, 1));
            close();
            disk_.put("data/" + snapshot_name({500}), bytes);
            disk_.put("data/" + snapshot_name({500}) + ".installing", "");
            disk_.die_after(steps);
            cleared = Storage::open(disk_, "data", 1 << 20).ok();
            disk_.die_after(UINT64_MAX);
            disk_.power_loss();
            open();
            ASSERT_FALSE(testing::Test::HasFatalFailure()) << "seed " << seed << ", step " << steps;
            EXPECT_EQ(found_.state.snapshot.index, LogIndex{}) << steps;
            EXPECT_EQ(entries().size(), 20U) << steps;
            EXPECT_THAT(disk_.paths(), testing::Each(testing::Not(testing::HasSubstr("snapshot")))) << steps;
            close();
        }
    }
}

TEST_F(StorageTest, ALogThatLostWhatItsSnapshotHoldsIsNotTaken) {
    open(4096);
    store::Store store;
    wait(append(1, 60, 1, 500));
    fill(store, 50);
    storage_->save(store, {{50}, {1}, founders()});
    loop_.run_until([&] { return saves_ == 1; });
    storage_->compact(*saved_, LogIndex{51});
    wait(append(61, 61, 1));
    close();
    std::vector<std::string> segments;
    ASSERT_FALSE(disk_.list("data/wal", segments));
    for (const std::string& segment : segments)
        ASSERT_FALSE(disk_.remove("data/wal/" + segment));
    for (int i = 0; i < 2; ++i) {  // and it stays there, however often it is tried
        const auto opened = Storage::open(disk_, "data", 4096);
        ASSERT_FALSE(opened);
        EXPECT_THAT(opened.error(), testing::HasSubstr("is gone, but " + snapshot_name({50})));
    }
}

// Any prefix of what happens when a snapshot is saved and the log cut may be the last that reached the disk.
TEST_F(StorageTest, SurvivesAPowerLossAtEveryStepOfASnapshot) {
    for (std::uint64_t steps = 1; steps < 60; ++steps) {
        disk_ = wal::VirtualDisk{steps};
        failure_.clear();
        saves_ = 0;
        open(4096);
        store::Store store;
        wait(append(1, 60, 1, 500));
        fill(store, 50);
        disk_.die_after(steps);
        storage_->save(store, {{50}, {1}, founders()});
        loop_.run_until([&] { return saves_ == 1 || !failure_.empty(); });
        if (failure_.empty() && saved_) {
            storage_->compact(*saved_, LogIndex{51});
            wait(append(61, 61, 1));
        }
        close();
        disk_.die_after(UINT64_MAX);
        disk_.power_loss();
        open(4096);
        const std::uint64_t begin = found_.state.snapshot.index.value;
        EXPECT_TRUE(begin == 0 || begin == 50) << steps;
        EXPECT_EQ(found_.store->applied_index(), begin);
        ASSERT_FALSE(entries().empty()) << steps;
        EXPECT_EQ(entries().front(), begin + 1) << steps;
        EXPECT_GE(entries().back(), 60U) << steps;
        close();
    }
}

TEST_F(StorageTest, ALogKeepsItsIdAndAnEmptiedDirectoryHasAnother) {
    open();
    wait(append(1, 3, 1));
    const std::uint64_t first = log_id_;
    EXPECT_NE(first, 0U);
    close();
    disk_.power_loss();
    open();
    EXPECT_EQ(log_id_, first);
    close();
    for (const std::string& path : disk_.paths())
        ASSERT_FALSE(disk_.remove(path));
    open();
    EXPECT_NE(log_id_, first);
}

// Either what was known before, or what was to be kept.
TEST_F(StorageTest, SurvivesAPowerLossAtEveryStepOfKeepingWhomItMet) {
    KnownLogs one;
    one.remember({2}, 22);
    KnownLogs both = one;
    both.remember({3}, 33);
    bool done = false;
    for (std::uint64_t steps = 0; !done; ++steps) {
        ASSERT_LT(steps, 20U);
        disk_ = wal::VirtualDisk{steps + 1};
        failure_.clear();
        open();
        EXPECT_EQ(found_.known_logs, KnownLogs());
        keep(one);
        disk_.die_after(steps);
        keep(both);
        done = failure_.empty();
        close();
        disk_.die_after(UINT64_MAX);
        disk_.power_loss();
        open();
        EXPECT_TRUE(found_.known_logs == both || (!done && found_.known_logs == one)) << steps;
        close();
    }
}

TEST_F(StorageTest, ALogThatIsGoneFromBesideWhomItMetIsNotFoundedAnew) {
    open();
    KnownLogs logs;
    logs.remember({2}, 22);
    keep(logs);
    close();
    std::vector<std::string> segments;
    ASSERT_FALSE(disk_.list("data/wal", segments));
    for (const std::string& segment : segments)
        ASSERT_FALSE(disk_.remove("data/wal/" + segment));
    for (int i = 0; i < 2; ++i) {
        const auto opened = Storage::open(disk_, "data", 1 << 20);
        ASSERT_FALSE(opened);
        EXPECT_THAT(opened.error(), testing::HasSubstr("is gone, but data/peers is there"));
    }
}

TEST_F(StorageTest, ADamagedFileOfWhomItMetIsTold) {
    open();
    close();
    disk_.put("data/peers", "x");
    const auto opened = Storage::open(disk_, "data", 1 << 20);
    ASSERT_FALSE(opened);
    EXPECT_THAT(opened.error(), testing::StartsWith("data/peers: its length or its check is wrong"));
}

TEST_F(StorageTest, ABackupIsRestoredAsAnotherCluster) {
    open();
    store::Store store;
    fill(store, 40);
    std::shared_ptr<wal::File> file;
    std::uint64_t size = 0;
    storage_->save_backup(store, {{40}, {1}, founders()},
                          [&](std::shared_ptr<wal::File> made, std::uint64_t bytes, const std::string&) {
                              file = std::move(made);
                              size = bytes;
                          });
    loop_.run_until([&] { return file != nullptr; });
    std::string bytes(size, '\0');
    ASSERT_EQ(file->read_at(0, bytes).bytes, size);
    close();
    disk_.put("backup", bytes + "not the digest, which has 32 byt");
    config::ControlSettings settings;
    settings.name = "a";
    settings.data = "restored";
    EXPECT_THAT(read_backup(disk_, "backup").error(), testing::HasSubstr("SHA-256"));
    EXPECT_FALSE(restore_backup(disk_, "backup", settings).ok());
}

}  // namespace
}  // namespace outrider::node
