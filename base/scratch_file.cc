#include "base/scratch_file.h"

#include <cerrno>
#include <cstdint>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

namespace outrider {

ScratchFile::~ScratchFile() {
    require(mapped_.empty(), "a scratch file outlives its blocks");
    if (file_ >= 0) ::close(file_);
}

void ScratchFile::warn(const char* what, int error) {
    if (warned_) return;
    warned_ = true;
    log_warning("cannot {} the file for history in {}: {}. It stays in memory, which needs more of it", what,
                directory_, std::generic_category().message(error));
}

bool ScratchFile::open() {
    if (file_ >= 0) return true;
    if (unusable_) return false;
    file_ = ::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (file_ < 0) {  // not every file system has it
        std::string name = directory_ + "/scratch.XXXXXX";
        file_ = ::mkostemp(name.data(), O_CLOEXEC);
        if (file_ >= 0) ::unlink(name.c_str());
    }
    if (file_ >= 0) return true;
    unusable_ = true;
    warn("open", errno);
    return false;
}

char* ScratchFile::map(std::size_t size) {
    if (!open()) return nullptr;
    std::vector<std::uint64_t>& unused = unused_[size];
    const std::uint64_t offset = unused.empty() ? end_ : unused.back();
    if (::fallocate(file_, 0, static_cast<off_t>(offset), static_cast<off_t>(size)) != 0) {
        warn("extend", errno);
        return nullptr;
    }
    // More than needed, so that there is an aligned part of it.
    const std::size_t reserved = size + kBlockBytes;
    void* const room =
        ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        warn("map", errno);
        return nullptr;
    }
    char* const begin = static_cast<char*>(room);
    const std::size_t skipped =
        (kBlockBytes - reinterpret_cast<std::uintptr_t>(begin) % kBlockBytes) % kBlockBytes;
    char* const block = begin + skipped;
    if (skipped > 0) ::munmap(begin, skipped);
    if (skipped < kBlockBytes) ::munmap(block + size, kBlockBytes - skipped);
    if (::mmap(block, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file_,
               static_cast<off_t>(offset)) == MAP_FAILED) {
        warn("map", errno);
        ::munmap(block, size);
        return nullptr;
    }
    if (unused.empty())
        end_ += size;
    else
        unused.pop_back();
    mapped_.emplace(block, offset);
    return block;
}

std::span<char> ScratchFile::take(std::size_t bytes) {
    const std::size_t size = round(bytes);
    {
        const std::lock_guard lock(mutex_);
        if (char* block = map(size); block != nullptr) return {block, size};
    }
    return heap_memory()->take(bytes);
}

void ScratchFile::give_back(std::span<char> block) {
    {
        const std::lock_guard lock(mutex_);
        if (const auto it = mapped_.find(block.data()); it != mapped_.end()) {
            ::munmap(block.data(), block.size());
            // Zeros for the next user; and nothing that need be written any more.
            const bool punched =
                ::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(it->second),
                            static_cast<off_t>(block.size())) == 0;
            if (!punched) warn("shrink", errno);
            unused_[block.size()].push_back(it->second);
            mapped_.erase(it);
            return;
        }
    }
    heap_memory()->give_back(block);
}

void ScratchFile::cool(std::span<char> block) {
    const std::lock_guard lock(mutex_);
    // Of a shared mapping this forgets the pages, not what is in them.
    if (mapped_.contains(block.data())) ::madvise(block.data(), block.size(), MADV_DONTNEED);
}

}  // namespace outrider
