-- One database for each role; run once, on a new volume.
CREATE DATABASE kato_primary;
CREATE DATABASE kato_testing;
CREATE DATABASE kato_analytics;
