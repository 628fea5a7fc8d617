"""`hardspike export zoo`: small networks by name, trained from recordings that ship, checked."""
