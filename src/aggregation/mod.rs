//! Stop 6 on the data's way: KPL aggregates taken apart.
