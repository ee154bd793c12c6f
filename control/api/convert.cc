#include "control/api/convert.h"

namespace outrider::api {
namespace {

// Enums of the wire are open: a number that has no name is taken for the first value, as etcd's comparisons do.
template <typename To>
To enum_of(int value, To last) {
    return value >= 0 && value <= static_cast<int>(last) ? static_cast<To>(value) : To{};
}

store::Compare compare_from(const v3::Compare& in) {
    store::Compare out;
    out.range = {in.key(), in.range_end()};
    out.result = enum_of(in.result(), store::Compare::Result::kNotEqual);
    out.target = enum_of(in.target(), store::Compare::Target::kLease);
    // What is given for another target than the one compared counts as not given.
    switch (out.target) {
        case store::Compare::Target::kVersion:
            out.number = in.version();
            break;
        case store::Compare::Target::kCreate:
            out.number = in.create_revision();
            break;
        case store::Compare::Target::kMod:
            out.number = in.mod_revision();
            break;
        case store::Compare::Target::kLease:
            out.number = in.lease();
            break;
        case store::Compare::Target::kValue:
            out.value = in.value();
            break;
    }
    return out;
}

void write_compare(const store::Compare& in, v3::Compare& out) {
    out.set_key(in.range.key);
    out.set_range_end(in.range.end);
    out.set_result(static_cast<v3::Compare::CompareResult>(in.result));
    out.set_target(static_cast<v3::Compare::CompareTarget>(in.target));
    switch (in.target) {
        case store::Compare::Target::kVersion:
            out.set_version(in.number);
            break;
        case store::Compare::Target::kCreate:
            out.set_create_revision(in.number);
            break;
        case store::Compare::Target::kMod:
            out.set_mod_revision(in.number);
            break;
        case store::Compare::Target::kLease:
            out.set_lease(in.number);
            break;
        case store::Compare::Target::kValue:
            out.set_value(in.value);
            break;
    }
}

store::Op op_from(const v3::RequestOp& in) {
    store::Op out;
    switch (in.request_case()) {
        case v3::RequestOp::kRequestRange:
            out.request = from_proto(in.request_range());
            break;
        case v3::RequestOp::kRequestPut:
            out.request = from_proto(in.request_put());
            break;
        case v3::RequestOp::kRequestDeleteRange:
            out.request = from_proto(in.request_delete_range());
            break;
        case v3::RequestOp::kRequestTxn:
            out.request = from_proto(in.request_txn());
            break;
        case v3::RequestOp::REQUEST_NOT_SET:
            break;
    }
    return out;
}

void write_op(const store::Op& in, v3::RequestOp& out) {
    if (const auto* range = std::get_if<store::RangeRequest>(&in.request))
        to_proto(*range, *out.mutable_request_range());
    if (const auto* put = std::get_if<store::PutRequest>(&in.request))
        to_proto(*put, *out.mutable_request_put());
    if (const auto* erase = std::get_if<store::DeleteRequest>(&in.request))
        to_proto(*erase, *out.mutable_request_delete_range());
    if (const auto* txn = std::get_if<store::TxnRequest>(&in.request))
        to_proto(*txn, *out.mutable_request_txn());
}

template <typename Message>
void set_header(const store::OpResponse& in, Message& out) {
    out.mutable_header()->set_revision(in.revision.value);
}

void write_op(const store::OpResponse& in, v3::ResponseOp& out) {
    const auto convert = [&](const auto& body, auto& message) {
        to_proto(body, message);
        set_header(in, message);
    };
    if (const auto* range = std::get_if<store::RangeResponse>(&in.body))
        convert(*range, *out.mutable_response_range());
    if (const auto* put = std::get_if<store::PutResponse>(&in.body))
        convert(*put, *out.mutable_response_put());
    if (const auto* erase = std::get_if<store::DeleteResponse>(&in.body))
        convert(*erase, *out.mutable_response_delete_range());
    if (const auto* txn = std::get_if<store::TxnResponse>(&in.body))
        convert(*txn, *out.mutable_response_txn());
}

}  // namespace

store::RangeRequest from_proto(const v3::RangeRequest& in) {
    store::RangeRequest out;
    out.range = {in.key(), in.range_end()};
    out.limit = in.limit();
    out.revision = {in.revision()};
    out.order = enum_of(in.sort_order(), store::RangeRequest::Order::kDescend);
    out.target = enum_of(in.sort_target(), store::RangeRequest::Target::kValue);
    out.keys_only = in.keys_only();
    out.count_only = in.count_only();
    out.serializable = in.serializable();
    out.min_mod_revision = {in.min_mod_revision()};
    out.max_mod_revision = {in.max_mod_revision()};
    out.min_create_revision = {in.min_create_revision()};
    out.max_create_revision = {in.max_create_revision()};
    return out;
}

void to_proto(const store::RangeRequest& in, v3::RangeRequest& out) {
    out.set_key(in.range.key);
    out.set_range_end(in.range.end);
    out.set_limit(in.limit);
    out.set_revision(in.revision.value);
    out.set_sort_order(static_cast<v3::RangeRequest::SortOrder>(in.order));
    out.set_sort_target(static_cast<v3::RangeRequest::SortTarget>(in.target));
    out.set_keys_only(in.keys_only);
    out.set_count_only(in.count_only);
    out.set_serializable(in.serializable);
    out.set_min_mod_revision(in.min_mod_revision.value);
    out.set_max_mod_revision(in.max_mod_revision.value);
    out.set_min_create_revision(in.min_create_revision.value);
    out.set_max_create_revision(in.max_create_revision.value);
}

store::PutRequest from_proto(const v3::PutRequest& in) {
    store::PutRequest out;
    out.key = in.key();
    out.value = in.value();
    out.lease = {in.lease()};
    out.prev_kv = in.prev_kv();
    out.ignore_value = in.ignore_value();
    out.ignore_lease = in.ignore_lease();
    return out;
}

void to_proto(const store::PutRequest& in, v3::PutRequest& out) {
    out.set_key(in.key);
    out.set_value(in.value);
    out.set_lease(in.lease.value);
    out.set_prev_kv(in.prev_kv);
    out.set_ignore_value(in.ignore_value);
    out.set_ignore_lease(in.ignore_lease);
}

store::DeleteRequest from_proto(const v3::DeleteRangeRequest& in) {
    store::DeleteRequest out;
    out.range = {in.key(), in.range_end()};
    out.prev_kv = in.prev_kv();
    return out;
}

void to_proto(const store::DeleteRequest& in, v3::DeleteRangeRequest& out) {
    out.set_key(in.range.key);
    out.set_range_end(in.range.end);
    out.set_prev_kv(in.prev_kv);
}

store::TxnRequest from_proto(const v3::TxnRequest& in) {
    store::TxnRequest out;
    for (const v3::Compare& compare : in.compare())
        out.compare.push_back(compare_from(compare));
    for (const v3::RequestOp& op : in.success())
        out.success.push_back(op_from(op));
    for (const v3::RequestOp& op : in.failure())
        out.failure.push_back(op_from(op));
    return out;
}

void to_proto(const store::TxnRequest& in, v3::TxnRequest& out) {
    for (const store::Compare& compare : in.compare)
        write_compare(compare, *out.add_compare());
    for (const store::Op& op : in.success)
        write_op(op, *out.add_success());
    for (const store::Op& op : in.failure)
        write_op(op, *out.add_failure());
}

void to_proto(const store::KeyValue& in, v3::KeyValue& out) {
    out.set_key(in.key);
    out.set_create_revision(in.create_revision.value);
    out.set_mod_revision(in.mod_revision.value);
    out.set_version(in.version);
    out.set_value(in.value);
    out.set_lease(in.lease.value);
}

void to_proto(const store::RangeResponse& in, v3::RangeResponse& out) {
    for (const store::KeyValue& kv : in.kvs)
        to_proto(kv, *out.add_kvs());
    out.set_more(in.more);
    out.set_count(in.count);
}

void to_proto(const store::PutResponse& in, v3::PutResponse& out) {
    if (in.prev_kv) to_proto(*in.prev_kv, *out.mutable_prev_kv());
}

void to_proto(const store::DeleteResponse& in, v3::DeleteRangeResponse& out) {
    out.set_deleted(in.deleted);
    for (const store::KeyValue& kv : in.prev_kvs)
        to_proto(kv, *out.add_prev_kvs());
}

void to_proto(const store::TxnResponse& in, v3::TxnResponse& out) {
    out.set_succeeded(in.succeeded);
    for (const store::OpResponse& response : in.responses)
        write_op(response, *out.add_responses());
}

}  // namespace outrider::api
