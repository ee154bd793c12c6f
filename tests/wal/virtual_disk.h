// A disk in memory that does what disks and kernels may do, chosen by a seed: the same seed does the same again.
//
// What it may do, and what a log that runs on it may rely on
//   * power_loss(): of what was not synced, each write survives by sectors of 512 bytes, any of them, in no order; a
//     truncation survives or not; a file may have grown over what was lost, which then reads as zeros. Names that
//     were not followed by sync_directory() survive or not, each on its own.
//   * A failed sync_data() loses what it should have written, apart from some sectors, and the next one succeeds without
//     writing it (the pages are marked clean). Reading shows the lost bytes until the power goes, or the old ones
//     at once, as file systems differ. Sizes are not lost so: they are the journal's.
//   * A failed sync_directory() loses nothing by itself: a journal keeps its transaction or refuses all further ones.
//   * A full disk writes what fits, then says ENOSPC.
//   * die_after(n): the n-th change from now on and all later ones are answered with an error, as if the machine had
//     stopped within whatever the log was doing. The bytes of that one write may be among what survives.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/wal/files.h"

namespace outrider::wal {

class VirtualDisk final : public FileSystem {
  public:
    // Each in 1 of this many calls; 0: never.
    struct Faults {
        std::uint64_t short_write = 0;
        std::uint64_t write_error = 0;
        std::uint64_t sync_error = 0;
        std::uint64_t directory_sync_error = 0;
        std::uint64_t name_error = 0;  // create, rename, remove
    };

    explicit VirtualDisk(std::uint64_t seed) : random_(seed) {}

    Faults faults;
    std::uint64_t capacity = UINT64_MAX;  // bytes in all files

    // The machine stops. Nothing may have a file open.
    void power_loss();
    void die_after(std::uint64_t changes) { changes_left_ = changes; }
    bool dead() const { return changes_left_ == 0; }

    // A file's bytes as a reader sees them; what a test writes here is durable.
    std::string read(const std::string& path) const;
    void put(const std::string& path, std::string bytes);
    void erase(const std::string& path);
    std::vector<std::string> paths() const;
    std::uint64_t used() const;
    std::uint64_t sync_calls() const { return sync_calls_; }

    IoError make_directory(const std::string& path) override;
    IoError list(const std::string& directory, std::vector<std::string>& names) override;
    Opened open(const std::string& path, OpenMode mode) override;
    IoError rename(const std::string& from, const std::string& to) override;
    IoError remove(const std::string& path) override;
    IoError sync_directory(const std::string& path) override;
    Locked lock(const std::string& path) override;
    std::uint64_t random() override { return random_.next(); }

  private:
    struct Change {
        std::uint64_t offset = 0;  // of bytes; the new size of a truncation
        std::string bytes;
        bool truncation = false;
    };
    struct Inode {
        std::string seen;  // through the page cache
        std::string disk;
        std::vector<Change> pending;  // in seen, not yet on the disk
    };
    using Names = std::map<std::string, std::shared_ptr<Inode>>;
    struct NameChange {
        std::string from;  // of a rename
        std::string path;
        std::shared_ptr<Inode> inode;  // none: removed
    };
    class OpenFile;
    class Lock;

    bool happens(std::uint64_t one_in) { return one_in != 0 && random_.below(one_in) == 0; }
    // Of each call that changes something. False: the machine is dead.
    bool change_begins();
    static void apply(std::string& bytes, const Change& change);
    static void apply(Names& names, const NameChange& change);
    // Some of what is pending reaches the disk; the rest is lost.
    void settle(Inode& inode, bool truncations_survive);

    Random random_;
    Names names_;
    Names disk_names_;
    std::vector<NameChange> pending_names_;
    std::set<std::string> directories_;
    std::shared_ptr<std::set<std::string>> locks_ = std::make_shared<std::set<std::string>>();
    std::uint64_t sync_calls_ = 0;
    std::uint64_t changes_left_ = UINT64_MAX;
    bool dies_now_ = false;
};

}  // namespace outrider::wal
