"""Moving what KATO keeps from one store to another: compared before, copied in batches, verified after."""
