"""What bench/compare is made of: processes, peers, measurements, profiles, tables."""
