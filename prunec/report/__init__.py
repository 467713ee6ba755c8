"""What a compile did, for people: `report.html` (one offline file) and tables for the terminal."""
