// Cold memory in a file without a name, which is gone with the process.
//
// cool() lets go of a block's pages: the process's resident set holds what is being used, and the kernel's page cache as much of the
// rest as nobody else needs. So a database may be larger than its machine's memory, or its container's.
//
// The file is mapped in extents of 64 MiB, since a process has 65,530 mappings at most. A block's room in it is claimed
// (fallocate) before it is handed out, and not all of the file system is taken: a tenth of it, at most 1 GiB, is left to those who
// must be able to write. Then, and on a file system that cannot claim room, the block comes from the heap, and one warning says so.
//
// A read that the disk fails ends the process (SIGBUS); so does, on a copy-on-write file system that has become full, a write.
// What the disk answers with other bytes must be found by a check of the user's.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/cold_memory.h"

namespace outrider {

// Any thread.
class ScratchFile final : public ColdMemory {
  public:
    static constexpr std::size_t kExtentBytes = std::size_t{64} << 20;
    static constexpr std::uint64_t kLeftMax = std::uint64_t{1} << 30;
    // Where a file has a name for a moment it begins like this: what a crash in that moment left may be deleted.
    static constexpr std::string_view kNamed = "scratch.";

    // In this directory, which need not be there before the first take().
    explicit ScratchFile(std::string directory) : directory_(std::move(directory)) {}
    // Everything has been given back.
    ~ScratchFile() override;
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;

    std::span<char> take(std::size_t bytes) override;
    void give_back(std::span<char> block) override;
    void cool(std::span<char> block) override;

  private:
    static constexpr std::size_t kSlots = kExtentBytes / kBlockBytes;
    struct Extent {
        char* memory = nullptr;
        std::vector<bool> used = std::vector<bool>(kSlots);
        std::size_t unused = kSlots;
    };

    // nullptr: not in the file.
    char* take_slots(std::size_t count);
    bool claim(std::uint64_t offset, std::size_t size);
    bool open();
    bool add_extent();
    // The extent that a block lies in; extents_.size(): it is the heap's.
    std::size_t extent_of(const char* block) const;
    std::uint64_t offset_of(std::size_t extent, const char* block) const;
    void warn(const char* what, const std::string& why);

    const std::string directory_;
    std::mutex mutex_;
    int file_ = -1;
    bool unusable_ = false;  // there is no such file
    bool warned_ = false;
    std::vector<Extent> extents_;  // in the order of the file
    std::map<const char*, std::size_t> by_address_;
    std::set<std::size_t> with_room_;
};

}  // namespace outrider
