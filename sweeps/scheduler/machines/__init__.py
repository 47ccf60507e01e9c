"""What a sweep runs on: nothing goes in; devices, a started Ray and a grown cluster come out."""
