#include "proxy/mirror.h"

namespace outrider::proxy {

void Mirrors::give_up_all() {
    while (first_ != nullptr) {
        if (first_->upstream_ != nullptr) first_->give_up();
        delete first_;
    }
}

Mirror::Mirror(Mirrors& mirrors, const Ref<WorkerCluster>& cluster, const Ref<Endpoint>& endpoint,
               bool chunked)
    : mirrors_(mirrors), next_(mirrors.first_), cluster_(cluster), endpoint_(endpoint), chunked_(chunked) {
    if (next_ != nullptr) next_->previous_ = this;
    mirrors.first_ = this;
    ++mirrors.count_;
}

Mirror::~Mirror() {
    (previous_ != nullptr ? previous_->next_ : mirrors_.first_) = next_;
    if (next_ != nullptr) next_->previous_ = previous_;
    --mirrors_.count_;
}

Mirror* Mirror::start(Mirrors& mirrors, const Ref<WorkerCluster>& cluster, std::uint64_t hash,
                      std::string head, bool head_method, bool chunked, Duration time) {
    Ref<Endpoint> endpoint;
    if (mirrors.full() || cluster->admit(hash, nullptr, endpoint) != Admission::kYes) {  // no copy waits
        cluster->cells().canceled->add();
        return nullptr;
    }
    auto* mirror = new Mirror(mirrors, cluster, endpoint, chunked);
    PooledConnection& connection = cluster->connection(endpoint, Duration::max());
    mirror->upstream_ = &connection;
    http::ClientConnection::RequestOptions options;
    options.head = head_method;
    options.read_timeout = cluster->settings().read_timeout;
    connection.bind(*mirror, options);
    cluster->begin(*endpoint);
    connection.loop().schedule(*mirror, time);
    mirror->write(head);
    return mirror;
}

void Mirror::write(std::string_view data) {
    if (upstream_ == nullptr) return;
    if (!upstream_->connected()) {
        if (held_.size() + data.size() > kHeldMax) {
            give_up();
            return;
        }
        held_.append(data);
        return;
    }
    if (upstream_->queued() > kHeldMax) {
        give_up();
        return;
    }
    upstream_->request_begun();
    upstream_->write_copy(data);
}

void Mirror::body(std::span<const std::string_view> slices) {
    std::size_t total = 0;
    for (const std::string_view s : slices)
        total += s.size();
    if (total == 0) return;
    if (chunked_) {
        char line[24];
        write(http::chunk_line(line, total));
    }
    for (const std::string_view s : slices)
        write(s);
    if (chunked_) write("\r\n");
}

void Mirror::finish() {
    if (chunked_) write("0\r\n\r\n");
    complete_ = true;
    owned_ = false;
    if (upstream_ == nullptr) {
        delete this;
        return;
    }
    if (upstream_->connected()) upstream_->request_finished();
}

void Mirror::drop() {
    owned_ = false;
    if (upstream_ != nullptr) {
        give_up();
    }
    delete this;
}

void Mirror::give_up() {
    upstream_->abandon();
    upstream_ = nullptr;
    cluster_->cells().canceled->add();
    cluster_->end(*endpoint_, Duration(-1), Instant(), false);
}

void Mirror::on_connected() {
    if (!held_.empty()) {
        upstream_->request_begun();
        upstream_->write_copy(held_);
        std::string().swap(held_);
    }
    if (complete_) upstream_->request_finished();
}

// A shadow that never ends its answer would hold a connection, and in the end all of them.
void Mirror::on_timeout(Instant) {
    if (upstream_ == nullptr) return;
    const uv::Loop::Event event(upstream_->loop());
    give_up();
    if (!owned_) delete this;
}

void Mirror::over() {
    upstream_ = nullptr;
    if (!owned_) delete this;
}

void Mirror::on_response_end(std::span<const http::Field>) {
    cluster_->cells().success->add();
    cluster_->end(*endpoint_, Duration(-1), Instant(), false);
    over();
}

void Mirror::on_failed(const http::ClientFailure&) {
    cluster_->cells().reset->add();
    cluster_->end(*endpoint_, Duration(-1), Instant(), true);
    over();
}

}  // namespace outrider::proxy
