#!/usr/bin/env bash
# Stands for a launcher that takes its time and catches no signal yet.
echo "slow launcher: $*"
exec sleep 30
