// Healthy is the primary of its replica set. A server on a new volume has none yet: it becomes the only member.
try {
  rs.status();
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "database:27017" }] });
}
quit(db.hello().isWritablePrimary ? 0 : 1);
