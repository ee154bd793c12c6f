// How a log is opened: what lies in its directory is checked, read, and brought to a durable end.
#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/wal/wal.h"

namespace outrider::wal {
namespace {

constexpr std::string_view kLockName = "lock";
constexpr std::uint64_t kSegmentOptionMax = std::uint64_t{1} << 30;
constexpr std::uint64_t kPreallocateMax = std::uint64_t{16} << 20;

WalOptions within_limits(WalOptions options) {
    options.segment_bytes = std::clamp<std::uint64_t>(options.segment_bytes, 4096, kSegmentOptionMax);
    options.preallocate_bytes = std::min(options.preallocate_bytes, kPreallocateMax);
    return options;
}

}  // namespace

Result<std::unique_ptr<Wal>> Wal::open(FileSystem& files, const std::string& directory,
                                       const WalOptions& options, const OnEntry& on_entry) {
    std::unique_ptr<Wal> log(new Wal(files, directory, within_limits(options)));
    if (const IoError failure = files.make_directory(directory)) return log->error("use", directory, failure);
    const std::string lock_path = fmt::format("{}/{}", directory, kLockName);
    FileSystem::Locked locked = files.lock(lock_path);
    if (locked.error) return log->error("lock", lock_path, locked.error);
    if (!locked.lock)
        return Error{fmt::format("write-ahead log: {} is in use by {}; two must not share a log", directory,
                                 locked.holder)};
    log->lock_ = std::move(locked.lock);
    if (auto recovered = log->recover(on_entry); !recovered) return Error{recovered.error()};
    return log;
}

Result<void> Wal::list_segments(std::vector<std::string>& leftovers) {
    std::vector<std::string> names;
    if (const IoError failure = files_.list(directory_, names)) return error("read", directory_, failure);
    for (const std::string& name : names) {
        if (name.ends_with(".wal.tmp")) {
            leftovers.push_back(directory_ + "/" + name);
        } else if (name.ends_with(".wal")) {
            const auto index = parse_segment_name(name);
            if (!index)
                return Error{fmt::format("write-ahead log: {}/{}: the name is no segment's (twenty digits)",
                                         directory_, name)};
            segments_.push_back({*index, 0});
        }
    }
    std::sort(segments_.begin(), segments_.end(),
              [](const Segment& a, const Segment& b) { return a.first_index < b.first_index; });
    return {};
}

Result<void> Wal::recover(const OnEntry& on_entry) {
    std::vector<std::string> leftovers;
    if (auto listed = list_segments(leftovers); !listed) return listed;

    Buffer buffer;
    for (std::size_t i = 0; i < segments_.size(); ++i) {
        const bool last = i + 1 == segments_.size();
        auto header = load(segments_[i], buffer, file_);
        if (!header) return Error{header.error()};
        segments_[i].bytes = buffer.text.size();
        if (auto placed = check_place(i, *header); !placed) return placed;
        header_ = *header;
        log_id_ = header_.log_id;

        SegmentReader reader(header_, buffer.text, last);
        SegmentReader::Step step = reader.next();
        for (; step.kind == SegmentReader::Kind::kRecord; step = reader.next()) {
            on_entry({header_.first_index + step.record.ordinal,
                      step.record.type,
                      step.record.payload,
                      {header_.first_index, step.offset}});
        }
        next_index_ = reader.next_index();
        recovery_.records += next_index_.value - header_.first_index.value;
        if (step.kind == SegmentReader::Kind::kCorrupt) return damage(segments_[i], step, next_index_);
        if (last) {
            if (auto ended = recover_end(reader, step, buffer); !ended) return ended;
        }
    }
    recovery_.segments = segments_.size();

    for (const std::string& leftover : leftovers) {
        if (const IoError failure = files_.remove(leftover)) return error("delete", leftover, failure);
    }
    if (segments_.empty()) {
        recovery_.created = true;
        log_id_ = files_.random();
        return create_segment(options_.first_index);
    }
    // The last owner may have ended between giving a segment its name and syncing the directory.
    if (const IoError failure = files_.sync_directory(directory_)) return error("sync", directory_, failure);
    return {};
}

// Cuts a torn end off and makes what was delivered durable (wal.h, "Errors": why it is written again).
Result<void> Wal::recover_end(const SegmentReader& reader, const SegmentReader::Step& end,
                              const Buffer& buffer) {
    Segment& active = segments_.back();
    const std::string name = path(active.first_index);
    if (end.kind == SegmentReader::Kind::kTorn) {
        recovery_.torn = Recovery::Torn{name, end.offset, active.bytes - end.offset, to_string(end.fault)};
        if (const IoError failure = file_->truncate(end.offset))
            return error("cut the torn end of", name, failure);
        active.bytes = end.offset;
    }
    const std::uint64_t proven = reader.proven_durable();
    if (proven < end.offset) {
        const std::string_view again = buffer.text.substr(proven, end.offset - proven);
        const File::Count count = write_ahead(*file_, proven, again, end.offset);
        if (count.bytes < again.size()) return error("write", name, count.error);
    }
    if (const IoError failure = file_->sync_data()) return error("sync", name, failure);
    end_ = durable_ = end.offset;
    durable_index_ = next_index_;
    return {};
}

Result<SegmentHeader> Wal::load(const Segment& segment, Buffer& buffer, std::unique_ptr<File>& file) const {
    const std::string name = path(segment.first_index);
    FileSystem::Opened opened = files_.open(name, FileSystem::OpenMode::kExisting);
    if (opened.error) return error("open", name, opened.error);
    const File::Count size = opened.file->size();
    if (size.error) return error("read", name, size.error);
    if (size.bytes > kSegmentBytesMax)
        return Error{
            fmt::format("write-ahead log: {}: {} bytes are more than a segment can have", name, size.bytes)};
    if (size.bytes > buffer.room) {
        buffer.bytes.reset(new char[size.bytes]);  // not zeroed
        buffer.room = size.bytes;
    }
    const File::Count read = opened.file->read_at(0, {buffer.bytes.get(), size.bytes});
    if (read.error) return error(fmt::format("read at offset {} of", read.bytes), name, read.error);
    buffer.text = {buffer.bytes.get(), read.bytes};
    auto header = decode_segment_header(buffer.text);
    if (!header) return Error{fmt::format("write-ahead log: {}: offset 0: {}", name, header.error())};
    if (header->first_index != segment.first_index)
        return Error{fmt::format(
            "write-ahead log: {}: offset 32: the segment begins with record {}, not as its name says", name,
            header->first_index.value)};
    file = std::move(opened.file);
    return header;
}

// Of one log, and without a gap behind the segment before it (which next_index_ still tells of).
Result<void> Wal::check_place(std::size_t position, const SegmentHeader& header) const {
    if (position == 0) return {};
    const std::string name = path(header.first_index);
    if (header.log_id != log_id_)
        return Error{fmt::format(
            "write-ahead log: {}: offset 16: the segment belongs to another log ({:016x}, not {:016x})", name,
            header.log_id, log_id_)};
    if (header.first_index != next_index_)
        return Error{fmt::format(
            "write-ahead log: {}: the segment begins with record {}, but {} ends before record {}: "
            "{}",
            name, header.first_index.value, path(segments_[position - 1].first_index), next_index_.value,
            header.first_index > next_index_ ? "records are missing between them" : "they overlap")};
    return {};
}

Error Wal::damage(const Segment& segment, const SegmentReader::Step& step, Index index) const {
    std::string why = "and a later segment exists";
    if (step.fault == RecordFault::kNone)
        return Error{fmt::format("write-ahead log: {}: offset {}: record {} is gone",
                                 path(segment.first_index), step.offset, index.value)};
    if (step.proof != 0)
        why = fmt::format("and the record at offset {} was written after this one was durable", step.proof);
    return Error{fmt::format("write-ahead log: {}: offset {}: record {} is damaged: {}, {}",
                             path(segment.first_index), step.offset, index.value, to_string(step.fault),
                             why)};
}

}  // namespace outrider::wal
