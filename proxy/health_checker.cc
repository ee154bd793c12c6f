#include "proxy/health_checker.h"

#include <algorithm>

#include "base/http/client_connection.h"
#include "base/uv/acceptor.h"
#include "filters/policy/health_detector.h"

namespace outrider::proxy {

namespace {
constexpr std::uint64_t kBodyMax = 64 * 1024;
constexpr std::size_t kHeadMax = 64 * 1024;

http::ParserLimits probe_limits() {
    http::ParserLimits limits;
    limits.head_bytes_max = kHeadMax;
    limits.fields_max = 200;
    return limits;
}

policy::HealthLimits detector_limits(const config::HealthSettings& s) {
    policy::HealthLimits limits;
    limits.phi = s.detector == config::HealthDetectorKind::kPhi;
    limits.unhealthy_after = s.unhealthy_after;
    limits.healthy_after = s.healthy_after;
    limits.phi_threshold = s.phi_threshold;
    limits.interval = s.interval;
    return limits;
}

const char* words_for(http::ClientError error) {
    switch (error) {
        case http::ClientError::kConnectRefused:
            return "connection refused";
        case http::ClientError::kConnectTimeout:
        case http::ClientError::kReadTimeout:
        case http::ClientError::kWriteTimeout:
            return "no answer in time";
        case http::ClientError::kReset:
            return "closed before the answer";
        case http::ClientError::kIncomplete:
            return "the answer broke off";
        case http::ClientError::kProtocol:
            return "the answer is not valid HTTP";
    }
    return "failed";
}
}  // namespace

// One question on a connection of its own. Owned by nobody: deletes itself when the connection's handle is closed.
class HealthChecker::Probe final : private http::ClientOwner, private http::ClientHandler, private Timer {
  public:
    // `reason` is empty when the check passed.
    using Done = std::function<void(std::string reason)>;

    Probe(uv::Loop& loop, http::ParserScratch& scratch, const config::HealthSettings& settings,
          const EndpointAddress& endpoint, Done done)
        : loop_(loop),
          settings_(settings),
          host_(settings.host.empty() ? endpoint.id : settings.host),
          limits_(probe_limits()),
          done_(std::move(done)) {
        connection_ = new http::ClientConnection(loop, *this, limits_, scratch);
        connection_->open(endpoint.address, settings.timeout + std::chrono::seconds(1));
        connection_->bind(*this, {});
        loop.schedule(*this, settings.timeout);
    }

    // Nobody wants to know any more.
    void cancel() {
        done_ = nullptr;
        over();
    }

  private:
    ~Probe() = default;

    void on_connected() override {
        if (settings_.kind == config::HealthKind::kTcp) {
            finish({});
            return;
        }
        connection_->request_begun();
        connection_->write_copy("GET ");
        connection_->write_copy(settings_.path);
        connection_->write_copy(" HTTP/1.1\r\nHost: ");
        connection_->write_copy(host_);
        connection_->write_copy(
            "\r\nUser-Agent: outrider-health\r\nAccept: */*\r\nConnection: close\r\n\r\n");
        connection_->request_finished();
    }
    void on_response_head(http::ResponseHead& head) override {
        if (head.status < 200) return;
        status_ = head.status;
        if (status_ >= 300 && status_ < 400) {
            finish("status " + std::to_string(status_) + ", a redirect");
        } else if (status_ >= 300) {
            finish("status " + std::to_string(status_));
        }
    }
    void on_response_body(std::span<const std::string_view> slices) override {
        for (const std::string_view s : slices)
            body_bytes_ += s.size();
        if (body_bytes_ > kBodyMax) finish("a body of more than 64 KiB");
    }
    void on_response_end(std::span<const http::Field>) override { finish({}); }
    void on_failed(const http::ClientFailure& failure) override {
        std::string reason = words_for(failure.error);
        if (failure.error == http::ClientError::kProtocol) reason += std::string(": ") + failure.reason;
        finish(std::move(reason));
    }
    void on_timeout(Instant) override {
        const uv::Loop::Event event(loop_);
        finish(status_ != 0               ? "the answer's body did not end in time"
               : connection_->connected() ? "no answer in time"
                                          : "no connection in time");
    }
    void on_connection_idle(http::ClientConnection& connection) override { connection.abandon(); }
    void on_connection_gone(http::ClientConnection&) override {}
    void on_connection_closed(http::ClientConnection& connection) override {
        delete &connection;
        delete this;
    }

    void finish(std::string reason) {
        if (done_) {
            const Done done = std::move(done_);
            done_ = nullptr;
            done(std::move(reason));
        }
        over();
    }
    void over() {
        loop_.cancel(*this);
        if (!over_) {
            over_ = true;
            connection_->abandon();  // harmless when it has failed or ended
        }
    }

    uv::Loop& loop_;
    const config::HealthSettings settings_;
    const std::string host_;
    const http::ParserLimits limits_;
    Done done_;
    http::ClientConnection* connection_ = nullptr;
    std::uint64_t body_bytes_ = 0;
    int status_ = 0;
    bool over_ = false;
};

// One endpoint, asked again and again.
class HealthChecker::Check final : private Timer {
  public:
    Check(HealthChecker& checker, Cluster& cluster, const EndpointAddress& endpoint,
          std::shared_ptr<EndpointHealth> health);
    ~Check() override {
        if (probe_ != nullptr) probe_->cancel();
    }
    const std::string& id() const { return endpoint_.id; }
    void configure();

  private:
    void on_timeout(Instant now) override;
    void ask();
    void on_result(const std::string& reason);
    void report(const std::string& reason);
    void arm();

    HealthChecker& checker_;
    Cluster& cluster_;
    EndpointAddress endpoint_;
    std::shared_ptr<EndpointHealth> health_;
    policy::HealthDetector detector_;
    Probe* probe_ = nullptr;
    Instant next_ask_{};
    std::string last_reason_;
};

class HealthChecker::Cluster final : private Timer {
  public:
    Cluster(HealthChecker& checker, const config::ClusterSettings& settings)
        : checker_(checker),
          name_(settings.name),
          health_(std::make_shared<ClusterHealth>(
              settings.name, [&loop = checker.loop_, alive = std::weak_ptr<bool>(checker.alive_),
                              &checker](const std::string& name) {
                  // From any thread: the main loop outlives the workers.
                  loop.post([alive, &checker, name] {
                      if (alive.lock()) checker.changed(name);
                  });
              })) {
        configure(settings);
    }

    void configure(const config::ClusterSettings& settings) {
        settings_ = settings.health;
        health_->configure(settings);
        if (!settings_) checks_.clear();
        for (const auto& check : checks_)
            check->configure();
        // Endpoints that were there before there were checks.
        if (settings_ && checks_.empty() && members_) check_members();
        arm();
    }

    EndpointSet attach(const EndpointSet& endpoints) {
        std::vector<std::string> ids;
        for (const EndpointAddress& e : *endpoints)
            ids.push_back(e.id);
        const auto health = health_->set_members(ids);
        auto set = std::make_shared<std::vector<EndpointAddress>>(*endpoints);
        for (std::size_t i = 0; i < set->size(); ++i)
            (*set)[i].health = health[i];
        members_ = set;
        if (settings_) check_members();
        arm();  // with fewer endpoints fewer may be out: some are due at once
        return set;
    }

    void arm() {
        if (const auto next = health_->end_ejections(checker_.loop_.now())) {
            checker_.loop_.schedule(*this, std::max(Duration(0), *next - checker_.loop_.now()));
        }
    }

    const std::optional<config::HealthSettings>& settings() const { return settings_; }
    const std::shared_ptr<ClusterHealth>& health() const { return health_; }
    CheckReport count;

  private:
    void on_timeout(Instant) override { arm(); }

    void check_members() {
        std::vector<std::unique_ptr<Check>> next;
        for (const EndpointAddress& e : *members_) {
            const auto same = [&](const auto& c) { return c && c->id() == e.id; };
            if (std::any_of(next.begin(), next.end(), same)) continue;  // listed twice
            const auto known = std::find_if(checks_.begin(), checks_.end(), same);
            next.push_back(known != checks_.end() ? std::move(*known)
                                                  : std::make_unique<Check>(checker_, *this, e, e.health));
        }
        checks_ = std::move(next);
    }

    HealthChecker& checker_;
    std::string name_;
    std::shared_ptr<ClusterHealth> health_;
    std::optional<config::HealthSettings> settings_;
    EndpointSet members_;
    std::vector<std::unique_ptr<Check>> checks_;
};

HealthChecker::Check::Check(HealthChecker& checker, Cluster& cluster, const EndpointAddress& endpoint,
                            std::shared_ptr<EndpointHealth> health)
    : checker_(checker),
      cluster_(cluster),
      endpoint_(endpoint),
      health_(std::move(health)),
      detector_(detector_limits(*cluster.settings())) {
    const Instant now = checker_.loop_.now();
    next_ask_ = now + policy::first_probe_wait(cluster_.settings()->interval, checker_.random_);
    arm();
}

void HealthChecker::Check::configure() {
    detector_.configure(detector_limits(*cluster_.settings()));
    next_ask_ = std::min(next_ask_, checker_.loop_.now() + cluster_.settings()->interval);
    arm();
}

// For the next question, or for the moment at which silence has lasted too long (phi).
void HealthChecker::Check::arm() {
    Instant next = probe_ != nullptr ? Instant::max() : next_ask_;
    if (const auto change = detector_.next_change(); change && detector_.healthy())
        next = std::min(next, *change);
    if (next == Instant::max()) {
        checker_.loop_.cancel(*this);
    } else {
        checker_.loop_.schedule(*this, std::max(Duration(0), next - checker_.loop_.now()));
    }
}

void HealthChecker::Check::on_timeout(Instant now) {
    if (detector_.on_time(now).changed) report(last_reason_.empty() ? "no heartbeat" : last_reason_);
    if (probe_ == nullptr && now >= next_ask_) ask();
    arm();
}

void HealthChecker::Check::ask() {
    const config::HealthSettings& settings = *cluster_.settings();
    next_ask_ = checker_.loop_.now() + policy::probe_wait(settings.interval, checker_.random_);
    probe_ = new Probe(checker_.loop_, checker_.scratch_, settings, endpoint_,
                       [this](const std::string& reason) { on_result(reason); });
}

void HealthChecker::Check::on_result(const std::string& reason) {
    probe_ = nullptr;
    last_reason_ = reason;
    const Instant now = checker_.loop_.now();
    ++(reason.empty() ? cluster_.count.passed : cluster_.count.failed);
    (void)(reason.empty() ? detector_.on_success(now) : detector_.on_failure(now));
    report(reason);
    arm();
}

void HealthChecker::Check::report(const std::string& reason) {
    cluster_.health()->set_checked(*health_, detector_.healthy(), reason.empty() ? "no heartbeat" : reason,
                                   checker_.loop_.wall());
}

// ---- the checker --------------------------------------------------------------------------------------------------------

HealthChecker::HealthChecker(uv::Loop& loop, std::function<void(const std::string&)> on_changed)
    : loop_(loop),
      on_changed_(std::move(on_changed)),
      random_(uv::random_seed()),
      alive_(std::make_shared<bool>(true)) {}

HealthChecker::~HealthChecker() = default;

void HealthChecker::close() {
    alive_.reset();
    clusters_.clear();
}

void HealthChecker::configure(const std::vector<config::ClusterSettings>& clusters) {
    std::unordered_map<std::string, std::unique_ptr<Cluster>> next;
    for (const config::ClusterSettings& settings : clusters) {
        auto& known = clusters_[settings.name];
        if (known) {
            known->configure(settings);
        } else {
            known = std::make_unique<Cluster>(*this, settings);
        }
        next[settings.name] = std::move(known);
    }
    clusters_ = std::move(next);
}

std::shared_ptr<ClusterHealth> HealthChecker::health(const std::string& cluster) const {
    return clusters_.at(cluster)->health();
}

EndpointSet HealthChecker::attach(const std::string& cluster, const EndpointSet& endpoints) {
    const auto it = clusters_.find(cluster);
    return it == clusters_.end() ? endpoints : it->second->attach(endpoints);
}

CheckReport HealthChecker::report(const std::string& cluster) const {
    const auto it = clusters_.find(cluster);
    return it == clusters_.end() ? CheckReport{} : it->second->count;
}

void HealthChecker::changed(const std::string& cluster) {
    const auto it = clusters_.find(cluster);
    if (it == clusters_.end()) return;
    it->second->arm();
    on_changed_(cluster);
}

}  // namespace outrider::proxy
