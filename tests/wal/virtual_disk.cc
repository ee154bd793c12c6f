#include "tests/wal/virtual_disk.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace outrider::wal {
namespace {

constexpr std::uint64_t kSector = 512;

}  // namespace

class VirtualDisk::OpenFile final : public File {
  public:
    OpenFile(VirtualDisk& disk, std::shared_ptr<Inode> inode) : disk_(disk), inode_(std::move(inode)) {}

    Count write_at(std::uint64_t offset, std::span<const std::string_view> pieces) override {
        std::string bytes;
        for (const std::string_view piece : pieces)
            bytes += piece;
        if (!disk_.change_begins()) {
            if (disk_.dies_now_) change({offset, std::move(bytes), false});
            return {0, {EIO}};
        }
        if (disk_.happens(disk_.faults.write_error)) return {0, {EIO}};
        IoError error;
        if (disk_.happens(disk_.faults.short_write)) bytes.resize(disk_.random_.below(bytes.size()) + 1);
        const std::uint64_t used = disk_.used();
        const std::uint64_t growth_max = disk_.capacity > used ? disk_.capacity - used : 0;
        const std::uint64_t end_max = inode_->seen.size() + growth_max;
        if (offset + bytes.size() > end_max) {
            bytes.resize(end_max > offset ? end_max - offset : 0);
            if (bytes.empty()) error = {ENOSPC};
        }
        if (bytes.empty()) return {0, error};
        const std::uint64_t written = bytes.size();
        change({offset, std::move(bytes), false});
        return {written, error};
    }

    Count read_at(std::uint64_t offset, std::span<char> room) override {
        if (offset >= inode_->seen.size()) return {};
        const std::size_t n = std::min<std::size_t>(room.size(), inode_->seen.size() - offset);
        std::memcpy(room.data(), inode_->seen.data() + offset, n);
        return {n, {}};
    }

    Count size() override { return {inode_->seen.size(), {}}; }

    IoError truncate(std::uint64_t size) override {
        if (!disk_.change_begins() || disk_.happens(disk_.faults.write_error)) return {EIO};
        change({size, {}, true});
        return {};
    }

    IoError sync_data() override {
        ++disk_.sync_calls_;
        if (!disk_.change_begins()) return {EIO};
        if (disk_.happens(disk_.faults.sync_error)) {
            disk_.settle(*inode_, true);
            if (disk_.random_.below(2) == 0) inode_->seen = inode_->disk;
            return {EIO};
        }
        for (const Change& pending : inode_->pending)
            apply(inode_->disk, pending);
        inode_->pending.clear();
        return {};
    }

  private:
    void change(Change change) {
        apply(inode_->seen, change);
        inode_->pending.push_back(std::move(change));
    }

    VirtualDisk& disk_;
    std::shared_ptr<Inode> inode_;
};

class VirtualDisk::Lock final : public FileLock {
  public:
    Lock(std::shared_ptr<std::set<std::string>> locks, std::string path)
        : locks_(std::move(locks)), path_(std::move(path)) {}
    ~Lock() override { locks_->erase(path_); }

  private:
    std::shared_ptr<std::set<std::string>> locks_;
    std::string path_;
};

void VirtualDisk::apply(std::string& bytes, const Change& change) {
    if (change.truncation) {
        bytes.resize(change.offset);
        return;
    }
    if (bytes.size() < change.offset + change.bytes.size()) bytes.resize(change.offset + change.bytes.size());
    std::memcpy(bytes.data() + change.offset, change.bytes.data(), change.bytes.size());
}

void VirtualDisk::apply(Names& names, const NameChange& change) {
    if (!change.from.empty()) {
        const auto found = names.find(change.from);
        if (found == names.end() || found->second != change.inode) return;
        names.erase(found);
    }
    if (change.inode) {
        names[change.path] = change.inode;
    } else {
        names.erase(change.path);
    }
}

void VirtualDisk::settle(Inode& inode, bool truncations_survive) {
    static constexpr std::array<std::uint64_t, 5> kPercent{0, 10, 50, 90, 100};
    const std::uint64_t percent = kPercent[random_.below(kPercent.size())];
    for (const Change& change : inode.pending) {
        if (change.truncation) {
            if (truncations_survive || random_.below(2) == 0) apply(inode.disk, change);
            continue;
        }
        const std::uint64_t end = change.offset + change.bytes.size();
        for (std::uint64_t at = change.offset; at < end;) {
            const std::uint64_t next = std::min(end, (at / kSector + 1) * kSector);
            if (random_.below(100) < percent)
                apply(inode.disk, {at, change.bytes.substr(at - change.offset, next - at), false});
            at = next;
        }
        if (inode.disk.size() < end && random_.below(2) == 0) inode.disk.resize(end);
    }
    inode.pending.clear();
}

bool VirtualDisk::change_begins() {
    if (changes_left_ == UINT64_MAX) return true;
    dies_now_ = changes_left_ == 1;
    if (changes_left_ > 0) --changes_left_;
    return changes_left_ > 0;
}

void VirtualDisk::power_loss() {
    changes_left_ = UINT64_MAX;
    std::set<Inode*> inodes;
    for (const auto* names : {&names_, &disk_names_}) {
        for (const auto& [path, inode] : *names)
            inodes.insert(inode.get());
    }
    // By name, so that a seed does the same in every process.
    for (const auto* names : {&names_, &disk_names_}) {
        for (const auto& [path, inode] : *names) {
            if (inodes.erase(inode.get()) == 0) continue;
            settle(*inode, false);
            inode->seen = inode->disk;
        }
    }
    for (const NameChange& change : pending_names_) {
        if (random_.below(2) == 0) apply(disk_names_, change);
    }
    pending_names_.clear();
    names_ = disk_names_;
    require(locks_->empty(), "nothing runs when the power goes");
}

std::string VirtualDisk::read(const std::string& path) const {
    const auto found = names_.find(path);
    return found == names_.end() ? std::string() : found->second->seen;
}

void VirtualDisk::put(const std::string& path, std::string bytes) {
    auto inode = std::make_shared<Inode>();
    inode->seen = inode->disk = std::move(bytes);
    names_[path] = disk_names_[path] = std::move(inode);
}

void VirtualDisk::erase(const std::string& path) {
    names_.erase(path);
    disk_names_.erase(path);
}

std::vector<std::string> VirtualDisk::paths() const {
    std::vector<std::string> out;
    for (const auto& [path, inode] : names_)
        out.push_back(path);
    return out;
}

std::uint64_t VirtualDisk::used() const {
    std::uint64_t sum = 0;
    for (const auto& [path, inode] : names_)
        sum += inode->seen.size();
    return sum;
}

IoError VirtualDisk::make_directory(const std::string& path) {
    directories_.insert(path);
    return {};
}

IoError VirtualDisk::list(const std::string& directory, std::vector<std::string>& names) {
    if (!directories_.contains(directory)) return {ENOENT};
    for (const auto& [path, inode] : names_) {
        if (path.starts_with(directory + "/")) names.push_back(path.substr(directory.size() + 1));
    }
    return {};
}

FileSystem::Opened VirtualDisk::open(const std::string& path, OpenMode mode) {
    const auto found = names_.find(path);
    if (mode == OpenMode::kExisting) {
        if (found == names_.end()) return {nullptr, {ENOENT}};
        return {std::make_unique<OpenFile>(*this, found->second), {}};
    }
    if (!change_begins() || happens(faults.name_error)) return {nullptr, {EIO}};
    if (found != names_.end()) {
        Change emptied{0, {}, true};
        apply(found->second->seen, emptied);
        found->second->pending.push_back(std::move(emptied));
        return {std::make_unique<OpenFile>(*this, found->second), {}};
    }
    auto inode = std::make_shared<Inode>();
    NameChange change{{}, path, inode};
    apply(names_, change);
    pending_names_.push_back(std::move(change));
    return {std::make_unique<OpenFile>(*this, std::move(inode)), {}};
}

IoError VirtualDisk::rename(const std::string& from, const std::string& to) {
    if (!change_begins() || happens(faults.name_error)) return {EIO};
    const auto found = names_.find(from);
    if (found == names_.end()) return {ENOENT};
    NameChange change{from, to, found->second};
    apply(names_, change);
    pending_names_.push_back(std::move(change));
    return {};
}

IoError VirtualDisk::remove(const std::string& path) {
    if (!change_begins() || happens(faults.name_error)) return {EIO};
    if (!names_.contains(path)) return {ENOENT};
    NameChange change{{}, path, nullptr};
    apply(names_, change);
    pending_names_.push_back(std::move(change));
    return {};
}

IoError VirtualDisk::sync_directory(const std::string&) {
    if (!change_begins() || happens(faults.directory_sync_error)) return {EIO};
    for (const NameChange& change : pending_names_)
        apply(disk_names_, change);
    pending_names_.clear();
    return {};
}

FileSystem::Locked VirtualDisk::lock(const std::string& path) {
    if (!locks_->insert(path).second) return {nullptr, {}, "another log"};
    return {std::make_unique<Lock>(locks_, path), {}, {}};
}

}  // namespace outrider::wal
