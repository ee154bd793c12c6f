#include "base/wal/wal.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"

namespace outrider::wal {
namespace {

constexpr std::string_view kTemporarySuffix = ".tmp";
constexpr std::size_t kEncodedKept = std::size_t{1} << 20;  // of the encoding buffer between batches

constexpr std::array<char, 65536> kZeros{};

}  // namespace

Error Wal::error(const std::string& what, const std::string& file, const IoError& cause) const {
    return Error{fmt::format("write-ahead log: cannot {} {}: {}", what, file, cause.text())};
}

Error Wal::fail(const std::string& what, const std::string& file, const IoError& cause) {
    failed_ = fmt::format("{}; nothing more is accepted until the log is opened anew",
                          error(what, file, cause).message);
    return Error{*failed_};
}

Result<void> Wal::refuse_if_failed() const {
    if (failed_) return Error{*failed_};
    return {};
}

std::uint64_t Wal::disk_bytes() const {
    std::uint64_t sum = 0;
    for (const Segment& segment : segments_)
        sum += segment.bytes;
    return sum;
}

std::uint64_t Wal::preallocation_goal(std::uint64_t end) const {
    if (options_.preallocate_bytes == 0) return end;
    const std::uint64_t step = options_.preallocate_bytes;
    const std::uint64_t goal = (end + step - 1) / step * step;
    return std::max(end, std::min(goal, options_.segment_bytes));
}

File::Count Wal::write_ahead(File& file, std::uint64_t offset, std::string_view bytes,
                             std::uint64_t goal) const {
    std::vector<std::string_view> pieces{bytes};
    for (std::uint64_t at = offset + bytes.size(); at < goal;) {
        const std::size_t n = std::min<std::uint64_t>(kZeros.size(), goal - at);
        pieces.emplace_back(kZeros.data(), n);
        at += n;
    }
    // One call writes it all, unless the disk is full. Zeros are nice to have: they are not asked for twice.
    File::Count total = file.write_at(offset, pieces);
    while (total.bytes < bytes.size() && !total.error) {
        const std::array<std::string_view, 1> rest{bytes.substr(total.bytes)};
        const File::Count more = file.write_at(offset + total.bytes, rest);
        total.bytes += more.bytes;
        total.error = more.error;
        if (more.bytes == 0 && !more.error) total.error = {EIO};
    }
    return total;
}

Result<Index> Wal::append(std::span<const Record> records) {
    if (auto usable = refuse_if_failed(); !usable) return Error{usable.error()};
    std::uint64_t total = 0;
    for (const Record& record : records) {
        if (record.payload.size() > kPayloadBytesMax)
            return Error{fmt::format("write-ahead log: a record of {} bytes is larger than {}",
                                     record.payload.size(), kPayloadBytesMax)};
        total += record_bytes(record.payload.size());
    }
    if (total > kBatchBytesMax)
        return Error{
            fmt::format("write-ahead log: a batch of {} bytes is larger than {}", total, kBatchBytesMax)};
    if (records.empty()) return next_index_;
    if (end_ + total > options_.segment_bytes) {
        if (auto rotated = rotate(); !rotated) return Error{rotated.error()};
    }

    // Copied into one piece: cheaper for small records than three pieces each, and one pass for the check.
    encoded_.resize(total);
    char* out = encoded_.data();
    auto ordinal = static_cast<std::uint32_t>(next_index_.value - header_.first_index.value);
    std::uint64_t offset = end_;
    for (const Record& record : records) {
        encode(header_,
               {.offset = offset,
                .ordinal = ordinal++,
                .durable = static_cast<std::uint32_t>(durable_),
                .type = record.type,
                .payload = record.payload},
               out);
        out += record_bytes(record.payload.size());
        offset += record_bytes(record.payload.size());
    }

    Segment& active = segments_.back();
    const std::uint64_t goal = offset > active.bytes ? preallocation_goal(offset) : offset;
    const File::Count count = write_ahead(*file_, end_, encoded_, goal);
    if (encoded_.capacity() > kEncodedKept) encoded_ = {};
    active.bytes = std::max(active.bytes, end_ + count.bytes);
    if (count.bytes < total) return undo_append(count.error, count.bytes);
    const Index first = next_index_;
    end_ = offset;
    next_index_ = next_index_ + records.size();
    return first;
}

// Cuts off what was written of a batch. The cut is synced before anything is written in its place: a crash must not
// find the sectors of two batches mixed.
Error Wal::undo_append(const IoError& cause, std::uint64_t written) {
    const std::string file = path(segments_.back().first_index);
    Error said = error("append to", file, cause);
    if (written == 0) return said;
    if (const IoError failure = file_->truncate(end_)) return fail("cut a failed append from", file, failure);
    segments_.back().bytes = end_;
    if (const IoError failure = file_->sync_data()) return fail("sync", file, failure);
    durable_ = end_;
    durable_index_ = next_index_;
    return said;
}

Result<void> Wal::sync() {
    if (auto usable = refuse_if_failed(); !usable) return usable;
    if (durable_ == end_) return {};
    if (const IoError failure = file_->sync_data()) return fail("sync", path(header_.first_index), failure);
    durable_ = end_;
    durable_index_ = next_index_;
    return {};
}

Result<void> Wal::rotate() {
    if (auto usable = refuse_if_failed(); !usable) return usable;
    if (end_ == kSegmentHeaderBytes) return {};  // nothing in it yet
    if (auto sealed = seal(); !sealed) return sealed;
    return create_segment(next_index_);
}

// The active segment exactly as long as its records, and synced: a reader takes it for granted of all but the last.
Result<void> Wal::seal() {
    Segment& active = segments_.back();
    const std::string file = path(active.first_index);
    const bool longer = active.bytes > end_;
    if (longer) {
        if (const IoError failure = file_->truncate(end_)) return fail("cut", file, failure);
        active.bytes = end_;
    }
    if (longer || durable_ != end_) {
        if (const IoError failure = file_->sync_data()) return fail("sync", file, failure);
    }
    durable_ = end_;
    durable_index_ = next_index_;
    return {};
}

Result<void> Wal::write_header(File& file, SegmentHeader& header, std::uint64_t& size) const {
    std::array<char, kSegmentHeaderBytes> bytes;
    encode(header, bytes.data());
    const File::Count count =
        write_ahead(file, 0, {bytes.data(), bytes.size()}, preallocation_goal(kSegmentHeaderBytes));
    size = count.bytes;
    if (count.bytes < bytes.size()) return Error{count.error.text()};
    if (const IoError failure = file.sync_data()) return Error{failure.text()};
    return {};
}

// A segment gets its name when its header is durable, so that no crash leaves a header by halves.
Result<void> Wal::create_segment(Index first_index) {
    const std::string name = path(first_index);
    const std::string temporary = name + std::string(kTemporarySuffix);
    FileSystem::Opened opened = files_.open(temporary, FileSystem::OpenMode::kCreate);
    if (opened.error) return error("create", name, opened.error);
    SegmentHeader header{.log_id = log_id_, .segment_id = files_.random(), .first_index = first_index};
    std::uint64_t size = 0;
    auto written = write_header(*opened.file, header, size);
    if (written) {
        if (const IoError failure = files_.rename(temporary, name)) written = Error{failure.text()};
    }
    if (!written) {
        static_cast<void>(files_.remove(temporary));  // open() does it otherwise
        return Error{fmt::format("write-ahead log: cannot create {}: {}", name, written.error())};
    }
    file_ = std::move(opened.file);
    header_ = header;
    end_ = durable_ = kSegmentHeaderBytes;
    next_index_ = durable_index_ = first_index;
    segments_.push_back({first_index, size});
    if (const IoError failure = files_.sync_directory(directory_)) return fail("sync", directory_, failure);
    return {};
}

Result<void> Wal::remove_segment(const Segment& segment) {
    const std::string file = path(segment.first_index);
    if (const IoError failure = files_.remove(file)) return error("delete", file, failure);
    // After each one: a crash that keeps an older segment and loses a newer one would leave a gap.
    if (const IoError failure = files_.sync_directory(directory_)) return fail("sync", directory_, failure);
    return {};
}

Result<void> Wal::release(Index before) {
    if (auto usable = refuse_if_failed(); !usable) return usable;
    while (segments_.size() > 1 && segments_[1].first_index <= before) {
        const Segment oldest = segments_.front();
        if (auto removed = remove_segment(oldest); !removed) return removed;
        segments_.pop_front();
    }
    return {};
}

Result<void> Wal::truncate_after(Index index) {
    if (auto usable = refuse_if_failed(); !usable) return usable;
    if (index + 1 < first_index())
        return Error{fmt::format("write-ahead log: cannot truncate after record {}: the log begins with {}",
                                 index.value, first_index().value)};
    if (index + 1 >= next_index_) return {};
    const bool other_segment = segments_.back().first_index > index && segments_.size() > 1;
    while (segments_.back().first_index > index && segments_.size() > 1) {
        const Segment newest = segments_.back();
        if (auto removed = remove_segment(newest); !removed) {
            // The file that is open may be gone from the directory.
            if (!failed_) failed_ = removed.error();
            return removed;
        }
        segments_.pop_back();
    }
    if (other_segment) file_.reset();
    if (auto cut = cut_active(index); !cut) {
        if (!failed_) failed_ = cut.error();
        return cut;
    }
    return {};
}

// Cuts the last segment behind `index`; opens it when it is not the active one yet.
Result<void> Wal::cut_active(Index index) {
    Segment& active = segments_.back();
    Buffer buffer;
    std::unique_ptr<File> file;
    auto header = load(active, buffer, file);
    if (!header) return Error{header.error()};
    SegmentReader reader(*header, buffer.text, true);
    std::uint64_t cut = kSegmentHeaderBytes;
    while (reader.next_index() <= index) {
        const SegmentReader::Step step = reader.next();
        if (step.kind != SegmentReader::Kind::kRecord) return damage(active, step, reader.next_index());
        cut = step.offset + record_bytes(step.record.payload.size());
    }
    const std::string name = path(active.first_index);
    if (const IoError failure = file->truncate(cut)) return fail("cut", name, failure);
    if (const IoError failure = file->sync_data()) return fail("sync", name, failure);
    file_ = std::move(file);
    header_ = *header;
    active.bytes = end_ = durable_ = cut;
    next_index_ = durable_index_ = index + 1;
    return {};
}

Result<void> Wal::scan(Index from, const OnEntry& on_entry) const {
    Buffer buffer;
    for (std::size_t i = 0; i < segments_.size(); ++i) {
        const bool last = i + 1 == segments_.size();
        if (!last && segments_[i + 1].first_index <= from) continue;
        std::unique_ptr<File> file;
        auto header = load(segments_[i], buffer, file);
        if (!header) return Error{header.error()};
        SegmentReader reader(*header, buffer.text, last);
        const Index stop = last ? next_index_ : segments_[i + 1].first_index;
        while (reader.next_index() < stop) {
            const Index index = reader.next_index();
            const SegmentReader::Step step = reader.next();
            if (step.kind != SegmentReader::Kind::kRecord) return damage(segments_[i], step, index);
            if (index >= from)
                on_entry({index, step.record.type, step.record.payload, {header->first_index, step.offset}});
        }
    }
    return {};
}

}  // namespace outrider::wal
