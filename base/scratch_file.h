// Cold memory in a file without a name, which is gone with the process.
//
// Blocks are mapped, and cool() lets go of their pages: the process's resident set holds what is being used, and the kernel's page
// cache as much of the rest as nobody else needs. So a database may be larger than its machine's memory, or its container's.
//
// The file's room is claimed (fallocate) before a block is mapped: on a full disk, and on a file system that cannot do this, the
// block comes from the heap, and one warning says so. A read that the disk fails ends the process (SIGBUS); one that it answers with
// other bytes must be found by a check of the user's.
#pragma once

#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/cold_memory.h"

namespace outrider {

// Any thread.
class ScratchFile final : public ColdMemory {
  public:
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
    // nullptr: not in the file.
    char* map(std::size_t size);
    bool open();
    void warn(const char* what, int error);

    const std::string directory_;
    std::mutex mutex_;
    int file_ = -1;
    bool unusable_ = false;  // there is no such file
    bool warned_ = false;
    std::uint64_t end_ = 0;
    std::unordered_map<const char*, std::uint64_t> mapped_;               // offsets
    std::unordered_map<std::size_t, std::vector<std::uint64_t>> unused_;  // offsets by size
};

}  // namespace outrider
