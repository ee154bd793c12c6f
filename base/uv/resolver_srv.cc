// Resolver::resolve_srv_addresses, built from the two look-ups that the resolver has.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/uv/resolver.h"

namespace outrider::uv {
namespace {

// One SRV answer whose targets are being resolved. Lives in the callbacks of its look-ups; when the
// resolver closes, those are dropped and this with them, so `resolver` never dangles.
class SrvJob : public std::enable_shared_from_this<SrvJob> {
  public:
    SrvJob(Resolver& resolver, SrvRecords records, std::function<void(Resolution<ResolvedSrv>)> callback)
        : resolver_(resolver), records_(std::move(records)), callback_(std::move(callback)) {
        if (records_.targets.size() > kSrvTargetsMax) records_.targets.resize(kSrvTargetsMax);
        addresses_.resize(records_.targets.size());
    }

    void start() {
        for (std::size_t i = 0; i < kSrvLookupsAtOnce; ++i) {
            start_next();
        }
    }

  private:
    void start_next() {
        if (next_ == records_.targets.size()) return;
        const std::size_t index = next_++;
        resolver_.resolve_addresses(records_.targets[index].host,
                                    [self = shared_from_this(), index](Resolution<ResolvedAddresses> result) {
                                        self->keep(index, std::move(result));
                                        if (++self->done_ == self->addresses_.size()) {
                                            self->callback_(self->result());
                                            return;
                                        }
                                        self->start_next();
                                    });
    }

    void keep(std::size_t index, Resolution<ResolvedAddresses> result) {
        const std::size_t max = std::max(kSrvTargetAddressesMin, kSrvAddressesMax / records_.targets.size());
        if (auto* found = std::get_if<ResolvedAddresses>(&result);
            found != nullptr && found->ips.size() > max) {
            std::sort(found->ips.begin(), found->ips.end());  // servers rotate their answers
            found->ips.resize(max);
            found->ips.shrink_to_fit();
        }
        addresses_[index] = std::move(result);
    }

    Resolution<ResolvedSrv> result() const {
        ResolvedSrv out{.endpoints = {}, .ttl = records_.ttl};
        for (std::size_t i = 0; i < addresses_.size(); ++i) {
            const auto* found = std::get_if<ResolvedAddresses>(&*addresses_[i]);
            if (found == nullptr) {
                out.ttl = std::min(out.ttl, kPartialSrvTtl);
                continue;
            }
            out.ttl = std::min(out.ttl, found->ttl);
            for (const std::string& ip : found->ips) {
                out.endpoints.push_back({ip, records_.targets[i]});
            }
        }
        if (out.endpoints.empty()) return std::get<ResolveError>(*addresses_.front());
        return out;
    }

    Resolver& resolver_;
    SrvRecords records_;
    std::function<void(Resolution<ResolvedSrv>)> callback_;
    std::vector<std::optional<Resolution<ResolvedAddresses>>> addresses_;  // one per target
    std::size_t next_ = 0;
    std::size_t done_ = 0;
};

}  // namespace

void Resolver::resolve_srv_addresses(std::string name,
                                     std::function<void(Resolution<ResolvedSrv>)> callback) {
    resolve_srv(
        std::move(name), [this, callback = std::move(callback)](Resolution<SrvRecords> result) mutable {
            if (auto* error = std::get_if<ResolveError>(&result)) {
                callback(std::move(*error));
                return;
            }
            std::make_shared<SrvJob>(*this, std::move(std::get<SrvRecords>(result)), std::move(callback))
                ->start();
        });
}

}  // namespace outrider::uv
